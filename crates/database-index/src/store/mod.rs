//! What is kept? Every SQL statement of the service: here those of users and queries, in `catalogue` those of indexes, in
//! `trial` what would be if there were another one.

mod catalogue;
mod trial;

use std::{str::FromStr, time::Duration};

use edge::database::{Database, Limits};
use serde_json::Value as Json;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions, types,
};
use tokio::time::timeout;

use crate::error::{Error, Result, code};
use crate::plan::Plan;
use crate::query::{Query, Value};
use crate::user::{NewUser, User};

pub use catalogue::{Existing, Progress};
pub use trial::{Trial, Tried};

/// The schema. Whoever starts the service has run it.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// For one call of the database.
const LIMITS: Limits =
    Limits { connections: 16, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };
/// For a connection of its own, to build or to fill, which takes as long as it takes.
const CONNECT: Duration = Duration::from_secs(2);

/// The users, and the indexes on them.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
    options: PgConnectOptions,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> sqlx::Result<Self> {
        let options = PgConnectOptions::from_str(url)?;
        Ok(Self { database: Database::new(url, LIMITS)?, options })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    /// A connection of its own, without a limit for a statement.
    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let connection = PgConnection::connect_with(&self.options);
        timeout(CONNECT, connection).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Makes this many users, if there are none.
    pub async fn fill_if_empty(&self, rows: i64) -> Result<()> {
        let mut connection = self.connect().await?;
        let mut tx = connection.begin().await?;
        // Of two processes that start at once, the second waits, and finds them.
        sqlx::query("lock table users in exclusive mode").execute(&mut *tx).await?;
        let filled = "select exists (select from users)";
        if sqlx::query_scalar(filled).fetch_one(&mut *tx).await? {
            return Ok(());
        }
        tracing::info!(rows, "the table is empty: users are made");
        sqlx::query(FILL).bind(1_i64).bind(rows).execute(&mut *tx).await?;
        tx.commit().await?;
        // The planner knows only what `analyze` has counted; an index-only scan needs what `vacuum` has seen.
        sqlx::query("vacuum analyze users").execute(&mut connection).await?;
        Ok(())
    }

    /// Makes the users with these numbers, for experiments. Nothing is counted or vacuumed.
    pub async fn add(&self, first: i64, last: i64) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::query(FILL).bind(first).bind(last).execute(&mut connection).await?;
        Ok(())
    }

    // ANCHOR: run
    /// Asks the planner what it would do; with `run`, also does it, and counts rows, pages and time.
    pub async fn explain(&self, query: &Query, values: &[Value], run: bool) -> Result<Plan> {
        let how = if run { "analyze, buffers, format json" } else { "format json" };
        let sql = format!("explain ({how}) {}", query.sql);
        let plan = async |tx: &mut PgConnection| {
            // Without workers and compilation the pages and times are those of the plan alone. The counters are
            // written at the end of the transaction, so that `GET /indexes` sees this scan.
            let settings = "set local max_parallel_workers_per_gather = 0; set local jit = off; \
                            select pg_stat_force_next_flush()";
            sqlx::raw_sql(settings).execute(&mut *tx).await?;
            planned(tx, &sql, values).await
        };
        self.database.transaction(plan).await
    }
    // ANCHOR_END: run

    /// How often `pg_stat_statements` has seen each of these statements; nothing where the extension is not there, or not loaded.
    pub async fn counted(&self, statements: &[&str]) -> Vec<(String, i64)> {
        let counted = async |it: &mut PgConnection| {
            let there = "select to_regclass('pg_stat_statements') is not null";
            if !sqlx::query_scalar(there).fetch_one(&mut *it).await? {
                return Ok(Vec::new());
            }
            let counted = "select query, sum(calls)::bigint
                           from pg_stat_statements
                           join pg_database on pg_database.oid = dbid
                           where datname = current_database() and query = any($1)
                           group by query";
            sqlx::query_as(counted).bind(statements).fetch_all(it).await
        };
        self.database.within(counted).await.unwrap_or_default()
    }

    /// A new user. A unique index, if somebody has made one, decides whether the address is free.
    pub async fn create(&self, new: &NewUser) -> Result<User> {
        let NewUser { email, name, city, born, notes, referred_by } = new;
        let insert = sqlx::query_as(
            "insert into users (email, name, city, born, notes, referred_by)
             values ($1, $2, $3, $4, $5, $6)
             returning id, email, name, city, born, status, referred_by, created_at",
        );
        let insert = insert.bind(email).bind(name).bind(city).bind(born);
        let insert = insert.bind(notes).bind(referred_by);
        self.database.within(async |it| insert.fetch_one(it).await).await
    }

    /// The user.
    pub async fn find(&self, id: i64) -> Result<User> {
        let find = "select id, email, name, city, born, status, referred_by, created_at
                    from users where id = $1";
        let find = sqlx::query_as(find).bind(id);
        let user = self.database.within(async |it| find.fetch_optional(it).await).await?;
        user.ok_or(Error::NOT_FOUND)
    }

    /// The first ten users with this address.
    pub async fn find_by_email(&self, email: &str) -> Result<Vec<User>> {
        let find = "select id, email, name, city, born, status, referred_by, created_at
                    from users where email = $1 limit 10";
        let find = sqlx::query_as(find).bind(email);
        self.database.within(async |it| find.fetch_all(it).await).await
    }

    // ANCHOR: rename
    /// Gives the user another name. No index holds it unless somebody makes one, so the new version of the row can stay on
    /// its page, and no index is touched: a HOT update.
    pub async fn rename(&self, id: i64, name: &str) -> Result<User> {
        let update = "update users
                      set name = $2
                      where id = $1
                      returning id, email, name, city, born, status, referred_by, created_at";
        let update = sqlx::query_as(update).bind(id).bind(name);
        let user = self.database.within(async |it| update.fetch_optional(it).await).await?;
        user.ok_or(Error::NOT_FOUND)
    }
    // ANCHOR_END: rename

    /// Takes the user away. PostgreSQL looks for users who were referred by this one: without an index on `referred_by`, in
    /// the whole table.
    pub async fn delete(&self, id: i64) -> Result<()> {
        let delete = sqlx::query("delete from users where id = $1").bind(id);
        let delete = async |it: &mut PgConnection| match delete.execute(it).await {
            Err(error) if code(&error).as_deref() == Some("23503") => Err(Error::REFERRED_TO),
            done => Ok(done?.rows_affected()),
        };
        let deleted = self.database.lend(delete).await?;
        if deleted == 1 { Ok(()) } else { Err(Error::NOT_FOUND) }
    }
}

/// What `explain` says of this statement.
async fn planned(tx: &mut PgConnection, sql: &str, values: &[Value]) -> sqlx::Result<Plan> {
    // The statement is one of ours, behind `explain`.
    let mut explain = sqlx::query_scalar::<_, types::Json<Json>>(AssertSqlSafe(sql.to_owned()));
    for value in values {
        explain = match value {
            Value::Text(text) => explain.bind(text),
            Value::Date(date) => explain.bind(date),
            Value::Integer(number) => explain.bind(number),
        };
    }
    Ok(Plan(explain.fetch_one(tx).await?.0))
}

/// In one statement a million rows take seconds. Cities and days are spread by a hash, so they are in no order; `created_at`
/// is in the order of the table.
const FILL: &str = "
    insert into users (email, name, city, born, status, tags, created_at)
    select
        'user' || n || '@example.org',
        'User ' || n,
        'City ' || (hashint8(n) & 2147483647) % 100,
        date '1950-01-01' + (hashint8(n + 1000000007) & 2147483647) % 20000,
        case when n % 100 = 0 then 'blocked' else 'active' end,
        array['tag ' || n % 1000],
        timestamptz '2026-01-01' + n * interval '1 second'
    from generate_series($1::bigint, $2::bigint) as n";
