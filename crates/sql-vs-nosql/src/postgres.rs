//! What do tables and documents share? The program: it asks the same questions, in other statements.
//!
//! Invariant: a transaction that decides about rows holds their locks until it commits. An order locks its customer first,
//! and then its products by their ids, so that no two orders wait for each other.

use std::{collections::BTreeMap, time::Duration};

use edge::database::{Database, Limits};
use sqlx::{AssertSqlSafe, PgConnection as Tx, migrate::Migrator, types::Json};

use crate::entity::{Fields, Kind};
use crate::error::{Error, Result};
use crate::order::{Order, Request};
use crate::query::{By, Read, Revenue, Search, Session};

/// The schema. It is there before the service starts.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call of the database; leaves room for an answer within the request's five seconds.
const LIMITS: Limits =
    Limits { connections: 16, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };

/// For one call of a replica. If it is silent for longer, there is still time for the primary.
const OF_A_REPLICA: Limits = Limits { timeout: Duration::from_millis(500), ..LIMITS };

/// Everything that differs between tables and documents. Where there are two, the first is for customers.
#[derive(Debug)]
pub struct Statements {
    /// Whether something may be kept that this program cannot read.
    pub any_shape: bool,
    /// The fields under id $1.
    pub find: [&'static str; 2],
    /// Keeps the fields $2 under id $1; all of them, with the amount, and whether there were none. Only a row that was
    /// inserted just now has no `xmax`: to update a row is to lock it.
    pub put: [&'static str; 2],
    /// Adds $2 to the amount.
    pub add: [&'static str; 2],
    /// The cheapest products with the attributes $1, for at most $2.
    pub search: &'static str,
    /// Whether customer $1 has ordered.
    pub has_orders: &'static str,
    /// Takes customer $1 away.
    pub delete: &'static str,
    /// Keeps the order $1.
    pub keep_order: &'static str,
    /// The newest hundred orders of customer $1.
    pub orders_of: &'static str,
    /// By country, if $1, and by month, if $2.
    pub revenue: &'static str,
}

/// A primary, perhaps a replica, and how the shop is kept there.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// In which statements.
    pub sql: &'static Statements,
    primary: Database<Error>,
    replica: Option<Database<Error>>,
}

impl Postgres {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(sql: &'static Statements, url: &str, replica: Option<&str>) -> sqlx::Result<Self> {
        let replica = replica.map(|url| Database::new(url, OF_A_REPLICA)).transpose()?;
        Ok(Self { sql, primary: Database::new(url, LIMITS)?, replica })
    }

    // ANCHOR: reader
    /// The replica, if it has got as far as what the client has written. A replica only goes forward, so what it has
    /// replayed now is there in the next statement too.
    async fn reader(&self, after: Option<&str>) -> Option<&Database<Error>> {
        let replica = self.replica.as_ref()?;
        let Some(after) = after else { return Some(replica) };
        let is_there = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        let is_there = sqlx::query_scalar::<_, Option<bool>>(is_there).bind(after);
        let is_there = replica.within(async |it| is_there.fetch_one(it).await).await;
        // It may not answer, or may not be able to read this.
        matches!(is_there, Ok(Some(true))).then_some(replica)
    }

    /// Where the log of the primary is, if a replica may be behind it. To be asked after the commit, which is itself a
    /// record of the log.
    pub async fn position(&self) -> Result<Option<String>> {
        let Some(_replica) = &self.replica else { return Ok(None) };
        let select = sqlx::query_scalar("select pg_current_wal_insert_lsn()::text");
        self.primary.within(async |it| select.fetch_one(it).await).await.map(Some)
    }
    // ANCHOR_END: reader

    /// Runs the work as one transaction. A refusal ends it without a change.
    async fn transaction<T>(&self, work: impl AsyncFnOnce(&mut Tx) -> Result<T>) -> Result<T> {
        self.primary.transaction_or_refusal(work).await?
    }

    // ANCHOR: readable
    /// The fields, if they are what this program reads. Tables check them when they are written. A document that has no
    /// constraint is first checked by its reader, in practice a year later.
    fn readable(&self, kind: Kind, Json(mut body): Json<Fields>) -> Result<Fields> {
        if self.sql.any_shape {
            let amount = body.remove(kind.amount()).unwrap_or_default();
            body = kind.checked(body).map_err(|_| Error::UNREADABLE)?;
            body.insert(kind.amount().to_owned(), amount);
        }
        Ok(body)
    }
    // ANCHOR_END: readable

    /// What the replica cannot give, the primary is asked for: the replica may be away, or not have it yet.
    pub async fn get(&self, kind: Kind, id: &str, after: Option<&str>) -> Result<Read> {
        if let Some(replica) = self.reader(after).await
            && let Ok(fields) = self.find(replica, kind, id).await
        {
            return Ok((fields, "replica"));
        }
        Ok((self.find(&self.primary, kind, id).await?, "primary"))
    }

    async fn find(&self, server: &Database<Error>, kind: Kind, id: &str) -> Result<Fields> {
        let find = sqlx::query_scalar(self.sql.find[kind as usize]).bind(id);
        let found = server.within(async |it| find.fetch_optional(it).await).await?;
        self.readable(kind, found.ok_or(Error::NOT_FOUND)?)
    }

    /// The fields, locked until the transaction ends.
    async fn lock(&self, tx: &mut Tx, kind: Kind, id: &str) -> Result<Option<Fields>> {
        let lock = AssertSqlSafe(format!("{} for update", self.sql.find[kind as usize]));
        let found = sqlx::query_scalar(lock).bind(id).fetch_optional(tx).await?;
        found.map(|body| self.readable(kind, body)).transpose()
    }

    /// Locked from the look at it to the commit.
    pub async fn replace(
        &self,
        kind: Kind,
        id: &str,
        decide: impl Fn(Option<Fields>) -> Result<Fields>,
    ) -> Result<(Fields, bool)> {
        self.transaction(async |tx| {
            let old = self.lock(tx, kind, id).await?;
            // Two may have found nothing to lock. The second one updates.
            let put = sqlx::query_as(self.sql.put[kind as usize]);
            let (Json(new), is_new) = put.bind(id).bind(Json(decide(old)?)).fetch_one(tx).await?;
            Ok((new, is_new))
        })
        .await
    }

    /// The lock comes first: an order that is being placed holds it, and the next statement sees what that has written.
    pub async fn delete(&self, customer: &str) -> Result<()> {
        self.transaction(async |tx| {
            self.lock(tx, Kind::Customer, customer).await?;
            let has_orders = sqlx::query_scalar(self.sql.has_orders).bind(customer);
            if has_orders.fetch_one(&mut *tx).await? {
                return Err(Error::HAS_ORDERS);
            }
            sqlx::query(self.sql.delete).bind(customer).execute(tx).await?;
            Ok(())
        })
        .await
    }

    /// One statement, so nobody can come in between.
    pub async fn add(&self, kind: Kind, id: &str, many: i64) -> Result<i64> {
        let add = sqlx::query_scalar(self.sql.add[kind as usize]).bind(id).bind(many);
        let amount = self.primary.within(async |it| add.fetch_optional(it).await).await?;
        amount.ok_or(Error::NOT_FOUND)
    }

    /// See the port.
    pub async fn search(&self, search: &Search) -> Result<Vec<(String, Fields)>> {
        let select = sqlx::query_as(self.sql.search);
        let select = select.bind(Json(&search.attributes)).bind(search.max_price);
        let found: Vec<_> = self.primary.within(async |it| select.fetch_all(it).await).await?;
        let readable = |(id, body)| self.readable(Kind::Product, body).map(|body| (id, body));
        found.into_iter().map(readable).collect()
    }

    // ANCHOR: place
    /// One transaction, in tables as in documents: whatever fails or refuses, nothing of it stays.
    pub async fn place(&self, request: &Request) -> Result<Order> {
        self.transaction(async |tx| {
            let customer = self.lock(tx, Kind::Customer, &request.customer).await?;
            let mut products = BTreeMap::new();
            for id in request.lines.keys() {
                let product = self.lock(tx, Kind::Product, id).await?;
                products.extend(product.map(|fields| (id.clone(), fields)));
            }
            let order = request.priced(customer.as_ref(), &products)?;
            let [pay, take] = self.sql.add;
            let pay = sqlx::query(pay);
            pay.bind(&order.customer).bind(-order.total_cents).execute(&mut *tx).await?;
            for (product, quantity) in &request.lines {
                let take = sqlx::query(take);
                take.bind(product).bind(-quantity).execute(&mut *tx).await?;
            }
            sqlx::query(self.sql.keep_order).bind(Json(&order)).execute(tx).await?;
            Ok(order)
        })
        .await
    }
    // ANCHOR_END: place

    /// See the port.
    pub async fn orders_of(&self, customer: &str) -> Result<Vec<Order>> {
        let select = sqlx::query_as(self.sql.orders_of).bind(customer);
        self.primary.within(async |it| select.fetch_all(it).await).await
    }

    /// One statement sees one moment.
    pub async fn revenue(&self, by: By) -> Result<Vec<Revenue>> {
        let select = sqlx::query_as(self.sql.revenue).bind(by.country).bind(by.month);
        self.primary.within(async |it| select.fetch_all(it).await).await
    }

    /// Keeps a session. Nobody but us takes away what has expired, so each write takes a few along.
    pub async fn put_session(&self, id: &str, session: &Session) -> Result<()> {
        let gone = "delete from sessions where id in (select id from sessions where expires_at < now() limit 10 for update skip locked)";
        self.primary.execute(sqlx::query(gone)).await?;
        let put = "insert into sessions (id, customer, expires_at) values ($1, $2, now() + $3 * interval '1 second') on conflict (id) do update set customer = excluded.customer, expires_at = excluded.expires_at";
        let put = sqlx::query(put).bind(id).bind(&session.customer).bind(session.ttl_seconds);
        self.primary.execute(put).await.map(drop)
    }

    /// The session, if it has not expired.
    pub async fn session(&self, id: &str) -> Result<Session> {
        let select = "select customer, ceil(extract(epoch from expires_at - now()))::bigint as ttl_seconds from sessions where id = $1 and expires_at > now()";
        let select = sqlx::query_as(select).bind(id);
        let session = self.primary.within(async |it| select.fetch_optional(it).await).await?;
        session.ok_or(Error::NOT_FOUND)
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<()> {
        self.primary.ping().await
    }
}
