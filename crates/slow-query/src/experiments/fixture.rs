//! What do tests, experiments and cases start from? A fresh database with a web site's data, and servers on it.

use std::time::Duration;

use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    cases::client::Client,
    store::{MIGRATIONS, Store, execute, explain_with},
};

const NAME: &str = "slow-query";

/// A fresh database. It is dropped with this value, so this has to outlive its servers.
#[derive(Debug)]
pub struct Fixture {
    /// With the events.
    pub database: Database,
    /// The experiment's own way to look into it.
    pub pool: PgPool,
    /// The answer's own way.
    pub store: Store,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh(events: i64) -> anyhow::Result<Self> {
        Self::with(Database::fresh(NAME, &MIGRATIONS).await?, events).await
    }

    /// On a server of the experiment's own.
    pub async fn on(server: &str, events: i64) -> anyhow::Result<Self> {
        Self::with(Database::fresh_on(server, NAME, &MIGRATIONS).await?, events).await
    }

    async fn with(database: Database, events: i64) -> anyhow::Result<Self> {
        let pool = database.pool().await?;
        let store = Store::new(database.url())?;
        let fixture = Self { database, pool, store };
        // It would count and vacuum at a moment of its own.
        for table in ["users", "events", "sessions"] {
            fixture.sql(&format!("alter table {table} set (autovacuum_enabled = off)")).await?;
        }
        if events > 0 {
            fixture.store.fill_if_empty(events).await?;
        }
        Ok(fixture)
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab, events: i64) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh(events).await
    }

    /// Prepares a server on this database.
    pub fn serve(&self) -> ChildBuilder {
        Child::serve(NAME).database(&self.database)
    }

    /// Starts a server; and a client of it.
    pub async fn start(&self) -> anyhow::Result<(Child, Client)> {
        let child = self.serve().start().await?;
        let client = Client::at(child.url())?;
        Ok((child, client))
    }

    /// A connection of its own.
    pub async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(self.database.url()).await?)
    }

    /// Statements of the experiment's own.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await?;
        Ok(())
    }

    /// One number.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.pool).await?)
    }

    /// The plan of a statement of the experiment's own, which is run as the answer runs its queries, under these settings.
    pub async fn explain(&self, settings: &str, sql: &str) -> anyhow::Result<Value> {
        let mut tx = self.pool.begin().await?;
        let settings = format!("{};{settings}", include_str!("../store/session.sql"));
        execute(&mut tx, &settings).await?;
        let mut plan = explain_with(&mut tx, "analyze, buffers", sql).await?;
        tx.commit().await?;
        Ok(plan[0].take())
    }
}

/// How many sessions of this database wait for a lock.
pub const WAITING: &str = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";

/// A program that locks the row of user 1 again and again, until this is dropped. It keeps the lock, idle in its transaction, until
/// somebody waits for it, and then for a while.
#[derive(Debug)]
pub struct Busy(JoinHandle<anyhow::Result<()>>);

impl Busy {
    /// Returns when the row is locked.
    pub async fn start(fixture: &Fixture, hold: Duration) -> anyhow::Result<Self> {
        let (mut holder, pool) = (fixture.connect().await?, fixture.pool.clone());
        lock(&mut holder).await?;
        Ok(Self(tokio::spawn(async move {
            loop {
                let waiting: i64 = sqlx::query_scalar(WAITING).fetch_one(&pool).await?;
                if waiting == 0 {
                    sleep(Duration::from_millis(5)).await;
                    continue;
                }
                // This is the work that the program does while it keeps its lock, and not a wait for somebody.
                sleep(hold).await;
                sqlx::raw_sql("commit").execute(&mut holder).await?;
                lock(&mut holder).await?;
            }
        })))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn lock(holder: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::raw_sql("begin; select id from users where id = 1 for update").execute(holder).await?;
    Ok(())
}
