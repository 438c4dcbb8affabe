//! What do tests, experiments and cases start from? A fresh database, a fresh part of Redis, and programs on them.

use std::collections::BTreeMap;

use anyhow::Context;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
    keys::Keys,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    MIGRATIONS,
    cases::client::Client,
    entity::{Fields, Kind},
    order::Request,
    store::{Model, Store},
};

const NAME: &str = "sql-vs-nosql";

/// Each store, and its name on the command line.
pub const MODELS: [(Model, &str); 3] =
    [(Model::Tables, "tables"), (Model::Documents, "documents"), (Model::KeyValue, "key-value")];

/// A fresh database and a fresh part of Redis. They are deleted with this value, so it has to outlive its programs.
#[derive(Debug)]
pub struct Fixture {
    /// With the schema, and nothing in it.
    pub database: Database,
    /// The experiment's own way to look into it.
    pub pool: PgPool,
    /// What every key begins with.
    pub keys: Keys,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh() -> anyhow::Result<Self> {
        let database = Database::fresh(NAME, &MIGRATIONS).await?;
        let (pool, keys) = (database.pool().await?, Keys::fresh(NAME).await?);
        Ok(Self { database, pool, keys })
    }

    /// For an experiment, whose report names the servers.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        lab.server(Service::Redis).await?;
        Self::fresh().await
    }

    /// Prepares a program on these servers.
    pub fn serve(&self, store: &str) -> ChildBuilder {
        self.serve_through(store, self.database.url(), self.keys.url())
    }

    /// The same, with these ways to the servers.
    pub fn serve_through(&self, store: &str, database: &str, redis: &str) -> ChildBuilder {
        // In the environment, so that the whiteboard version finds them too.
        let serve = Child::serve(NAME).env("DATABASE_URL", database).env("REDIS_URL", redis);
        serve.env("KEY_PREFIX", self.keys.prefix()).args(&["--store", store])
    }

    /// Starts a program; and a client of it.
    pub async fn start(&self, store: &str) -> anyhow::Result<(Child, Client)> {
        let child = self.serve(store).start().await?;
        let client = Client::at(child.url())?;
        Ok((child, client))
    }

    /// A store within this process, without HTTP.
    pub fn store(&self, model: Model) -> anyhow::Result<Store> {
        self.store_through(model, self.database.url(), self.keys.url())
    }

    /// The same, with these ways to the servers.
    pub fn store_through(
        &self,
        model: Model,
        database: &str,
        redis: &str,
    ) -> anyhow::Result<Store> {
        Store::new(model, (database, None), (redis, self.keys.prefix()))
    }
}

/// An object as the stores take it.
pub fn fields(value: Value) -> anyhow::Result<Fields> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => anyhow::bail!("not an object"),
    }
}

/// Puts a customer or a product there, with this amount.
pub async fn make(
    store: &Store,
    kind: Kind,
    id: &str,
    body: Value,
    amount: i64,
) -> anyhow::Result<()> {
    let new = kind.checked(fields(body)?)?;
    store.replace(kind, id, |_| Ok(new.clone())).await?;
    if amount > 0 {
        store.add(kind, id, amount).await?;
    }
    Ok(())
}

/// A customer with these cents, from this country.
pub async fn customer(store: &Store, id: &str, country: &str, cents: i64) -> anyhow::Result<()> {
    let body = json!({ "name": format!("Customer {id}"), "country": country });
    make(store, Kind::Customer, id, body, cents).await
}

/// An order of one piece of each of these products.
pub fn one_of_each<'a>(customer: &str, products: impl IntoIterator<Item = &'a String>) -> Request {
    let lines: BTreeMap<_, _> = products.into_iter().map(|id| (id.clone(), 1)).collect();
    Request { customer: customer.to_owned(), lines }
}

/// The lines of code between an anchor's marks, without comments.
pub fn lines_of(source: &str, anchor: &str) -> anyhow::Result<usize> {
    let (_, from) = source.split_once(&format!("// ANCHOR: {anchor}\n")).context("no anchor")?;
    let (code, _) = from.split_once(&format!("// ANCHOR_END: {anchor}")).context("no end")?;
    let lines = code.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count())
}
