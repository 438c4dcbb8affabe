//! What is kept? Every statement of the service: here those of users and queries, in `catalogue` those of indexes, in `trial`
//! what would be if there were another one. The longer ones are in files of their own.

mod catalogue;
mod trial;

use std::{str::FromStr, time::Duration};

use edge::database::{Database, Limits};
use serde_json::Value;
use sqlx::query::QueryScalar;
use sqlx::{AssertSqlSafe, Connection, PgConnection as Tx, postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::{error::Error, error::Result, plan::Plan, query::Query, user::NewUser};

pub use catalogue::Existing;
pub use trial::{Statement, Trial};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// For one call of the database.
const LIMITS: Limits =
    Limits { connections: 16, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };

/// The users, and the indexes on them.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
    options: PgConnectOptions,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> sqlx::Result<Self> {
        // A build says nothing for minutes, and firewalls forget such connections.
        let options = PgConnectOptions::from_str(url)?.options([("tcp_keepalives_idle", "30")]);
        Ok(Self { database: Database::new(url, LIMITS)?, options })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    /// A connection of its own, without a limit for a statement. It has time: a build should not fail because the server is
    /// busy for a moment.
    async fn connect(&self) -> sqlx::Result<Tx> {
        let connection = Tx::connect_with(&self.options);
        timeout(Duration::from_secs(10), connection).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Makes this many users, if there are none.
    pub async fn fill_if_empty(&self, rows: i64) -> sqlx::Result<()> {
        let mut connection = self.connect().await?;
        let mut tx = connection.begin().await?;
        // Of two processes that start at once, the second waits, and finds them. A lock on the table would wait for a build
        // that is under way, and all writers behind it.
        sqlx::query("select pg_advisory_xact_lock(hashtext('fill'))").execute(&mut *tx).await?;
        let last = "select case when exists (select from users) then 0 else $1::bigint end";
        let last: i64 = sqlx::query_scalar(last).bind(rows).fetch_one(&mut *tx).await?;
        sqlx::query(include_str!("fill.sql")).bind(1_i64).bind(last).execute(&mut *tx).await?;
        tx.commit().await?;
        // The planner knows only what `analyze` has counted; an index-only scan needs what `vacuum` has seen.
        sqlx::query("vacuum (skip_locked, analyze) users").execute(&mut connection).await.map(drop)
    }

    // ANCHOR: run
    /// Asks the planner what it would do; with `run`, also does it, and counts rows, pages and time.
    pub async fn explain(&self, query: &Query, values: &[String], run: bool) -> Result<Plan> {
        let how = if run { "analyze, buffers, format json" } else { "format json" };
        let plan = async |tx: &mut Tx| {
            sqlx::raw_sql(include_str!("session.sql")).execute(&mut *tx).await?;
            planned(tx, how, query, values).await
        };
        self.database.transaction(plan).await
    }
    // ANCHOR_END: run

    /// A new user. A unique index, if somebody has made one, decides whether the address is free.
    pub async fn create(&self, new: &NewUser) -> Result<Value> {
        let insert = sqlx::query_scalar(include_str!("create.sql")).bind(&new.email);
        let insert = insert.bind(&new.name).bind(&new.city).bind(new.born);
        let insert = insert.bind(&new.notes).bind(new.referred_by);
        self.database.within(async |it| insert.fetch_one(it).await).await
    }

    /// The user.
    pub async fn find(&self, id: i64) -> Result<Value> {
        let find = sqlx::query_scalar(include_str!("find.sql")).bind(id);
        self.database.within(async |it| find.fetch_one(it).await).await
    }

    /// The first ten users with this address.
    pub async fn find_by_email(&self, email: &str) -> Result<Vec<Value>> {
        let find = sqlx::query_scalar(include_str!("find_by_email.sql")).bind(email);
        self.database.within(async |it| find.fetch_all(it).await).await
    }
}

/// What `explain` says of this query, which is one of ours.
async fn planned(tx: &mut Tx, how: &str, query: &Query, values: &[String]) -> sqlx::Result<Plan> {
    let sql = AssertSqlSafe(format!("explain ({how}) {}", query.sql));
    let explain = sqlx::query_scalar::<_, Value>(sql);
    let explain = values.iter().fold(explain, QueryScalar::bind);
    explain.fetch_one(tx).await.map(Plan)
}
