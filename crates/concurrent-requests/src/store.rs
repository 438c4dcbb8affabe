//! What is kept? Every SQL statement of the shop, on a pool of connections.
//!
//! Invariant: taking stock and making the order are one statement. So a request may be dropped at any moment, and the row
//! of a product that everybody wants is locked for no longer than that statement takes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use edge::database::{Database, Limits};
use futures_util::{
    FutureExt,
    future::{BoxFuture, WeakShared},
};
use sqlx::{error::DatabaseError, migrate::Migrator, query, query_as};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::order::{NewOrder, Order, Product};
use crate::report::{Day, Hour, Report};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// A read that is under way, as long as somebody waits for it.
type Flight = WeakShared<BoxFuture<'static, Result<Product>>>;

/// The shop's database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
    /// The reads that are under way, by product, if equal ones share a statement.
    flights: Option<Arc<Mutex<HashMap<i64, Flight>>>>,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL. `timeout` is for a call, from its waiting
    /// for a connection to the last row.
    pub fn new(url: &str, connections: u32, timeout: Duration, shared: bool) -> sqlx::Result<Self> {
        let limits = Limits { connections, timeout, pause: Duration::from_secs(2) };
        let database = Database::new(url, limits)?;
        Ok(Self { database, flights: shared.then(Arc::default) })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    /// Puts a product up for sale, or changes it.
    pub async fn put(&self, product: &Product) -> Result<()> {
        let Product { id, name, cents, stock } = product;
        let put = query(
            r#"
            insert into products (id, name, cents, stock)
            values ($1, $2, $3, $4)
            on conflict (id) do update set name = $2, cents = $3, stock = $4
            "#,
        );
        self.database.execute(put.bind(id).bind(name).bind(cents).bind(stock)).await.map(drop)
    }

    // ANCHOR: find
    /// The product. If equal reads share a statement, whoever comes while one is under way waits for its answer. That answer
    /// may be older than the question: it knows nothing of what was written since its statement began.
    pub async fn find(&self, id: i64) -> Result<Product> {
        let Some(flights) = &self.flights else { return self.read(id).await };
        let flight = {
            // Nothing panics while it holds the lock, so poison is ignored.
            let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
            let under_way = flights.get(&id).and_then(WeakShared::upgrade);
            under_way.filter(|it| it.peek().is_none()).unwrap_or_else(|| {
                flights.retain(|_, it| it.upgrade().is_some());
                let store = self.clone();
                let flight = async move { store.read(id).await }.boxed().shared();
                flights.extend(flight.downgrade().map(|it| (id, it)));
                flight
            })
        };
        // If all who wait are dropped, so is the statement.
        flight.await
    }
    // ANCHOR_END: find

    async fn read(&self, id: i64) -> Result<Product> {
        let find = query_as("select id, name, cents, stock from products where id = $1").bind(id);
        let product = self.database.within(async |it| find.fetch_optional(it).await).await?;
        product.ok_or(Error::NOT_FOUND)
    }

    // ANCHOR: buy
    /// Takes the stock and makes the order, or does nothing. For a key that came before, the order of then.
    pub async fn buy(&self, new: &NewOrder) -> Result<Order> {
        if let Some(order) = self.take(new).await? {
            return Ok(order);
        }
        match self.order_of(&new.key).await? {
            Some(it) if (it.product, it.quantity) == (new.product, new.quantity) => Ok(it),
            Some(_) => Err(Error::KEY_REUSED),
            None => Err(self.find(new.product).await.err().unwrap_or(Error::SOLD_OUT)),
        }
    }

    /// A new order, if the key is new and enough is left. One statement: who waits for the row of the product looks at its
    /// stock again when the row is free. A key that is used at the same moment is refused by its index, and then the stock is
    /// not taken either.
    async fn take(&self, new: &NewOrder) -> Result<Option<Order>> {
        let take = query_as(
            r#"
            with taken as (
                update products
                set stock = stock - $3
                where id = $2 and stock >= $3 and not exists (select from orders where key = $4)
                returning id
            )
            insert into orders (id, key, product, quantity)
            select $1, $4, id, $3
            from taken
            returning id, product, quantity, created_at
            "#,
        );
        let take = take.bind(Uuid::now_v7()).bind(new.product).bind(new.quantity).bind(&new.key);
        let order = self.database.lend(async |it| match take.fetch_optional(it).await {
            // An answer like another: the connection is as good as before.
            Err(error) if is_repeated(&error) => Ok(None),
            order => Ok(order?),
        });
        order.await
    }
    // ANCHOR_END: buy

    async fn order_of(&self, key: &str) -> Result<Option<Order>> {
        let find = "select id, product, quantity, created_at from orders where key = $1";
        let find = query_as(find).bind(key);
        self.database.within(async |it| find.fetch_optional(it).await).await
    }

    /// The order.
    pub async fn find_order(&self, id: Uuid) -> Result<Order> {
        let find = "select id, product, quantity, created_at from orders where id = $1";
        let find = query_as(find).bind(id);
        let order = self.database.within(async |it| find.fetch_optional(it).await).await?;
        order.ok_or(Error::NOT_FOUND)
    }

    /// Reads all orders of the day, which takes as long as there are many.
    pub async fn report(&self, day: Day) -> Result<Report> {
        let read = query_as::<_, Hour>(
            r#"
            select extract(hour from created_at at time zone 'UTC')::int as hour,
                count(*) as orders,
                sum(quantity)::bigint as items
            from orders
            where created_at >= ($1::date)::timestamp at time zone 'UTC'
                and created_at < ($1::date)::timestamp at time zone 'UTC' + interval '1 day'
            group by 1
            order by 1
            "#,
        );
        let read = read.bind(day.date());
        let hours = self.database.within(async |it| read.fetch_all(it).await).await?;
        Ok(Report::of(day, hours))
    }
}

/// Whether the key is that of an order that was made at the same moment.
fn is_repeated(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(DatabaseError::constraint);
    constraint == Some("orders_key")
}
