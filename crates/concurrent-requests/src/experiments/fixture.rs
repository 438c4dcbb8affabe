//! What do tests, experiments and cases start from? A fresh database, and shops on it.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::join_all;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
    fault::{Fault, Proxy},
};
use serde_json::Value;
use sqlx::PgPool;

pub use super::clients::{Clients, Seen, Stall, at_rate, percentile, recovered, share, stall};
use crate::MIGRATIONS;

const NAME: &str = "concurrent-requests";

/// Products 1 to this.
pub const PRODUCTS: i64 = 100;

/// A fresh database. It is dropped with this value, so this has to outlive its shops.
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

    /// For an experiment, whose report names the server; with products.
    pub async fn of(lab: &Lab, stock: i32) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        let fixture = Self::fresh().await?;
        fixture.fill(stock).await?;
        Ok(fixture)
    }

    /// Puts up the products, so many of each.
    pub async fn fill(&self, stock: i32) -> anyhow::Result<()> {
        let fill = "insert into products (id, name, cents, stock)
                    select n, 'product ' || n, 1000, $2 from generate_series(1, $1) as n";
        sqlx::query(fill).bind(PRODUCTS).bind(stock).execute(&self.pool).await?;
        Ok(())
    }

    /// Prepares a shop on this database.
    pub fn serve(&self) -> ChildBuilder {
        Child::serve(NAME).database(&self.database)
    }

    /// Starts a shop with so many connections to a database that is far away: each statement takes twice the delay, however
    /// busy this machine is. So the connections set the capacity, and the clients do not compete with the shop.
    pub async fn far(
        &self,
        connections: u32,
        delay: Duration,
        words: &[&str],
    ) -> anyhow::Result<Far> {
        let proxy = Proxy::to_url(self.database.url()).await?;
        let url = proxy.url(self.database.url())?;
        let shop = self.serve().env("DATABASE_URL", url).args(words);
        let shop = shop.args(&["--connections", &connections.to_string()]).start().await?;
        let clients = Arc::new(Clients::of(shop.address()));
        // All connections are made, and know the statement, before anything is measured.
        proxy.set(Fault::Delay(Duration::from_millis(2)));
        let ask = async || {
            join_all((0..4 * connections).map(|_| clients.get("/products/1"))).await;
        };
        // Not for ever: a shop that makes fewer is to be measured too.
        for _ in 0..40 {
            ask().await;
            if proxy.connections() >= connections.into() {
                break;
            }
        }
        ask().await;
        ask().await;
        proxy.set(Fault::Delay(delay));
        Ok(Far { shop, proxy, clients })
    }

    /// How many items were sold.
    pub async fn sold(&self) -> anyhow::Result<i64> {
        let sold = "select coalesce(sum(quantity), 0)::bigint from orders";
        Ok(sqlx::query_scalar(sold).fetch_one(&self.pool).await?)
    }

    /// How many items of a product are neither there nor in an order, and how many are in orders. In one statement, since
    /// orders may still be made.
    pub async fn books(&self, product: i64, before: i32) -> anyhow::Result<(i64, i64)> {
        let books = "select $2 - stock - sold, sold
                     from products, (select coalesce(sum(quantity), 0)::bigint as sold from orders) as all_orders
                     where id = $1";
        let books = sqlx::query_as(books).bind(product).bind(i64::from(before));
        Ok(books.fetch_one(&self.pool).await?)
    }

    /// How many sessions wait for a lock.
    pub async fn waiters(&self) -> anyhow::Result<i64> {
        let waiters = "select count(*) from pg_stat_activity
                       where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0";
        Ok(sqlx::query_scalar(waiters).fetch_one(&self.pool).await?)
    }

    /// How many of a product are left.
    pub async fn stock(&self, product: i64) -> anyhow::Result<i64> {
        let stock = "select stock::bigint from products where id = $1";
        Ok(sqlx::query_scalar(stock).bind(product).fetch_one(&self.pool).await?)
    }
}

/// A shop far from its database.
#[derive(Debug)]
pub struct Far {
    /// The shop.
    pub shop: Child,
    /// What is between it and its database.
    pub proxy: Proxy,
    /// Its clients.
    pub clients: Arc<Clients>,
}

impl Far {
    /// What the shop says of itself.
    pub async fn pressure(&self) -> anyhow::Result<Value> {
        Ok(reqwest::get(format!("{}/pressure", self.shop.url())).await?.json().await?)
    }

    /// How many requests are at work or wait.
    pub async fn inside(&self) -> anyhow::Result<u64> {
        let pressure = self.pressure().await?;
        let inside = pressure["in_flight"].as_u64().zip(pressure["waiting"].as_u64());
        inside.map(|(in_flight, waiting)| in_flight + waiting).context("no pressure")
    }
}

/// The product that the nth request asks for.
pub fn product(n: u64) -> String {
    format!("/products/{}", 1 + n % PRODUCTS.unsigned_abs())
}

/// The most requests of one statement that so many connections can serve in a second, if each statement goes there and back.
pub fn capacity(connections: u32, delay: Duration) -> f64 {
    f64::from(connections) / (2.0 * delay.as_secs_f64())
}
