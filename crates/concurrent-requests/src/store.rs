//! What is kept? Every SQL statement of the shop, on a pool of connections.
//!
//! Invariant: taking stock and making the order are one statement. So a request may be dropped at any moment, and the row
//! of a product that everybody wants is locked for no longer than that statement takes.

use std::time::Duration;

use edge::database::{Database, Limits};
use sqlx::{error::DatabaseError, migrate::Migrator, query, query_as};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::order::{NewOrder, Order, Product};
use crate::report::{Day, Hour, Report};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// The shop's database.
#[derive(Clone, Debug)]
pub struct Store(Database<Error>);

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL. `timeout` is for a call, from its waiting
    /// for a connection to the last row.
    pub fn new(url: &str, connections: u32, timeout: Duration) -> sqlx::Result<Self> {
        let limits = Limits { connections, timeout, pause: Duration::from_secs(2) };
        Ok(Self(Database::new(url, limits)?))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.0.ping().await
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
        self.0.execute(put.bind(id).bind(name).bind(cents).bind(stock)).await.map(drop)
    }

    /// The product.
    pub async fn find(&self, id: i64) -> Result<Product> {
        let find = query_as("select id, name, cents, stock from products where id = $1").bind(id);
        let product = self.0.within(async |it| find.fetch_optional(it).await).await?;
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
        let order = self.0.lend(async |it| match take.fetch_optional(it).await {
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
        self.0.within(async |it| find.fetch_optional(it).await).await
    }

    /// The order.
    pub async fn find_order(&self, id: Uuid) -> Result<Order> {
        let find = "select id, product, quantity, created_at from orders where id = $1";
        let find = query_as(find).bind(id);
        let order = self.0.within(async |it| find.fetch_optional(it).await).await?;
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
        let hours = self.0.within(async |it| read.fetch_all(it).await).await?;
        Ok(Report::of(day, hours))
    }
}

/// Whether the key is that of an order that was made at the same moment.
fn is_repeated(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(DatabaseError::constraint);
    constraint == Some("orders_key")
}
