//! What do tests, experiments and cases start from? A fresh database, and servers on it.

use anyhow::ensure;
use axum::Router;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
    serve::{Here, here},
};
use sqlx::PgPool;

use super::compare::graphql;
use crate::{MIGRATIONS, api, cases::client::Client, store::Store};

const NAME: &str = "rest-api";

/// Serves it within this process; and a client of it.
pub async fn serve_here(router: Router) -> anyhow::Result<(Here, Client)> {
    let here = here(router).await?;
    let client = Client::at(&format!("http://{}", here.host))?;
    Ok((here, client))
}

/// A fresh database. It is dropped with this value, so this has to outlive its servers.
#[derive(Debug)]
pub struct Fixture {
    /// With the schema, and nothing in it.
    pub database: Database,
    /// The experiment's own way to look into it.
    pub pool: PgPool,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh() -> anyhow::Result<Self> {
        let database = Database::fresh(NAME, &MIGRATIONS).await?;
        let pool = database.pool().await?;
        Ok(Self { database, pool })
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh().await
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

    /// The answer itself, with or without the limits of GraphQL, for which the program has no option.
    pub fn router(&self, limited: bool) -> anyhow::Result<Router> {
        let store = Store::new(self.database.url())?;
        Ok(api::router(store.clone(), graphql::calls(store, limited)))
    }

    /// Users `user 1` to `user n` in one statement, each with so many orders. Thousands of requests would take longer than
    /// all that is measured.
    pub async fn fill(&self, users: i32, orders: i32) -> anyhow::Result<()> {
        let fill = r#"
            with made as (
                insert into users (id, name, email, email_key, created_at)
                select gen_random_uuid(), 'user ' || n, 'user' || n || '@example.org',
                    'user' || n || '@example.org', now() - interval '1 day' + n * interval '1 ms'
                from generate_series(1, $1) as n
                returning id
            )
            insert into orders (id, user_id, item, quantity)
            select gen_random_uuid(), made.id, 'a box of the usual things, number ' || n, n
            from made, generate_series(1, $2) as n
        "#;
        sqlx::query(fill).bind(users).bind(orders).execute(&self.pool).await?;
        sqlx::raw_sql("vacuum analyze").execute(&self.pool).await?;
        Ok(())
    }

    /// A digest of everything that the service keeps: another row, or another value, is another digest.
    pub async fn digest(&self) -> anyhow::Result<String> {
        let digest = r#"
            select md5(concat(
                (select string_agg(users::text, ',' order by id) from users),
                (select string_agg(orders::text, ',' order by id) from orders),
                (select string_agg(idempotency_keys::text, ',' order by key) from idempotency_keys)))
        "#;
        Ok(sqlx::query_scalar(digest).fetch_one(&self.pool).await?)
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &'static str) -> anyhow::Result<i64> {
        ensure!(["users", "orders", "idempotency_keys"].contains(&table), "no table {table}");
        let count = format!("select count(*) from {table}");
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&self.pool).await?)
    }
}
