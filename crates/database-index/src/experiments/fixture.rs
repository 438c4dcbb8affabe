//! What do tests, experiments and cases start from? A fresh database with users, and servers on it.

use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};
use sqlx::{AssertSqlSafe, PgPool, types::Json};

use crate::{
    MIGRATIONS,
    cases::client::Client,
    index::{Index, Name},
    plan::Plan,
    query::{Query, Value},
    store::Store,
};

const NAME: &str = "database-index";

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
        let database = Database::fresh(NAME, &MIGRATIONS).await?;
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

    /// Statements of the experiment's own.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await?;
        Ok(())
    }

    /// One number.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.pool).await?)
    }

    /// Pages of a table or an index.
    pub async fn pages(&self, name: &str) -> anyhow::Result<i64> {
        self.number(&format!("select pg_relation_size('{name}') / 8192")).await
    }

    /// The plan of a statement of the experiment's own, under these settings, and with this of `explain`.
    pub async fn explain(&self, settings: &str, how: &str, sql: &str) -> anyhow::Result<Plan> {
        let mut tx = self.pool.begin().await?;
        let settings = format!(
            "set local max_parallel_workers_per_gather = 0; set local jit = off; {settings}"
        );
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *tx).await?;
        let explain = format!("explain (analyze, {how}, format json) {sql}");
        let Json(plan) = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(Plan(plan))
    }

    /// Builds an index as the answer does it.
    pub async fn build(&self, name: &str, index: &Index) -> anyhow::Result<()> {
        Ok(self.store.build(&parse(name)?, index).await?)
    }

    /// Drops an index.
    pub async fn drop(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.store.drop(&parse(name)?).await?)
    }

    /// Runs a query twice, so that its pages are in memory; the second run's plan.
    pub async fn run(&self, query: &str, values: &[Value]) -> anyhow::Result<Plan> {
        let query = Query::find(query)?;
        self.store.explain(query, values, true).await?;
        Ok(self.store.explain(query, values, true).await?)
    }
}

fn parse(name: &str) -> anyhow::Result<Name> {
    Name::parse(name).map_err(anyhow::Error::msg)
}

/// A parameter.
pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
