//! What do tests, experiments and cases start from? A fresh database with users, and servers on it.

use std::{ops::Deref, time::Duration};

use conform::target::within;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction, types::Json};

use crate::{
    cases::client::Client,
    index::{Column, Index, Name},
    plan::Plan,
    query::Query,
    store::{MIGRATIONS, Store},
};

const NAME: &str = "database-index";

impl Index {
    /// A B-tree on these columns.
    pub fn on(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), ..Self::default() }
    }
}

/// A fresh database. It is dropped with this value, so this has to outlive its servers.
#[derive(Debug)]
pub struct Fixture {
    /// With the users.
    pub database: Database,
    /// The experiment's own way to look into it.
    pub pool: PgPool,
    /// The answer's own way.
    pub store: Store,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh(rows: i64) -> anyhow::Result<Self> {
        Self::with(Database::fresh(NAME, &MIGRATIONS).await?, rows).await
    }

    /// On a server of the test's own.
    pub async fn on(server: &str, rows: i64) -> anyhow::Result<Self> {
        Self::with(Database::fresh_on(server, NAME, &MIGRATIONS).await?, rows).await
    }

    async fn with(database: Database, rows: i64) -> anyhow::Result<Self> {
        let pool = database.pool().await?;
        let store = Store::new(database.url())?;
        let fixture = Self { database, pool, store };
        // It would count and vacuum at a moment of its own.
        fixture.sql("alter table users set (autovacuum_enabled = off)").await?;
        if rows > 0 {
            fixture.store.fill_if_empty(rows).await?;
        }
        Ok(fixture)
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab, rows: i64) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh(rows).await
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

    /// Makes the users with these numbers. Nothing is counted or vacuumed.
    pub async fn add(&self, first: i64, last: i64) -> anyhow::Result<()> {
        let fill = sqlx::query(include_str!("../store/fill.sql")).bind(first).bind(last);
        fill.execute(&self.pool).await?;
        Ok(())
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

    /// Indexes that a broken build has left.
    pub async fn invalid(&self) -> anyhow::Result<i64> {
        self.number("select count(*) from pg_index where not indisvalid").await
    }

    /// Whether this server has trigrams.
    pub async fn has_trigrams(&self) -> anyhow::Result<bool> {
        let there = "select count(*) from pg_available_extensions where name = 'pg_trgm'";
        Ok(self.number(there).await? > 0)
    }

    /// A transaction with an old snapshot. It keeps the last step of a build waiting: the index is written to by then, and not
    /// valid.
    pub async fn old_reader(&self) -> anyhow::Result<Transaction<'static, Postgres>> {
        let mut reader = self.pool.begin().await?;
        let old = "set transaction isolation level repeatable read";
        sqlx::query(old).execute(&mut *reader).await?;
        sqlx::query("select id from users limit 1").execute(&mut *reader).await?;
        Ok(reader)
    }

    /// Waits until a build waits for another transaction; the process of PostgreSQL that builds.
    pub async fn waiting_build(&self) -> anyhow::Result<i64> {
        let builds = "select coalesce(max(pid), 0)::bigint from pg_stat_activity
            where datname = current_database() and query ilike 'create index%' and wait_event_type = 'Lock'";
        within(Duration::from_mins(1), "the build waits for a transaction", async || {
            let pid = self.number(builds).await?;
            Ok((pid > 0).then_some(pid))
        })
        .await
    }

    /// Pages of a table or an index.
    pub async fn pages(&self, name: &str) -> anyhow::Result<i64> {
        self.number(&format!("select pg_relation_size('{name}') / 8192")).await
    }

    /// The plan of a statement of the experiment's own, under these settings, and with this of `explain`.
    pub async fn explain(&self, settings: &str, how: &str, sql: &str) -> anyhow::Result<Reading> {
        let mut tx = self.pool.begin().await?;
        let settings = format!(
            "set local max_parallel_workers_per_gather = 0; set local jit = off; {settings}"
        );
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *tx).await?;
        let explain = format!("explain (analyze, {how}, format json) {sql}");
        let Json(plan) = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(Reading(Plan(plan)))
    }

    /// Builds an index as the answer does it.
    pub async fn build(&self, name: &str, index: &Index) -> anyhow::Result<()> {
        Ok(self.store.build(&Name::parse(name)?, index).await?)
    }

    /// Drops an index.
    pub async fn drop(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.store.drop_index(&Name::parse(name)?).await?)
    }

    /// Runs a query twice, so that its pages are in memory; the second run's plan.
    pub async fn run(&self, query: &str, values: &[String]) -> anyhow::Result<Reading> {
        let query = Query::find(query)?;
        self.store.explain(query, values, true).await?;
        Ok(Reading(self.store.explain(query, values, true).await?))
    }
}

/// A plan that was run, as an experiment reads it.
#[derive(Clone, Debug)]
pub struct Reading(pub Plan);

impl Reading {
    /// Pages that were read, in PostgreSQL's memory or not.
    pub fn pages(&self) -> f64 {
        self.number("Shared Hit Blocks") + self.number("Shared Read Blocks")
    }

    /// Whether a node of this kind is in it.
    pub fn has(&self, kind: &str) -> bool {
        self.nodes().iter().any(|node| node.kind == kind)
    }

    /// Whether it reads this index, or this table.
    pub fn reads(&self, name: &str) -> bool {
        self.nodes().iter().any(|node| node.reads.as_deref() == Some(name))
    }
}

impl Deref for Reading {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

/// What this session has counted of the users, within a transaction. An earlier transaction's may be in it, which is not yet
/// handed over to the others, so only a difference says something.
pub async fn counted(tx: &mut PgConnection, what: &str) -> sqlx::Result<i64> {
    let sql = format!("select {what} from pg_stat_xact_user_tables where relname = 'users'");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx).await
}

/// A parameter.
pub fn text(text: &str) -> String {
    text.to_owned()
}
