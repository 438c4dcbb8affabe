//! Does the cache-aside answer do what its table of calls says? Over HTTP, as its clients would.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cache_aside::MIGRATIONS;
use lab::{
    child::{Child, ChildBuilder},
    database::Database,
    fault::{Fault, Proxy},
    keys::Keys,
};
use redis::AsyncCommands;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{
    http::{client, header, invalid, problem, refuses_bad_bodies},
    support::{Outcome, eventually, tests},
};

tests![
    a_user_is_made_and_read_from_the_database_and_then_from_redis,
];

/// A service of the test's own, spoken to in its own words.
struct Api {
    child: Child,
    http: reqwest::Client,
    database: Database,
    keys: Keys,
}

impl Api {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let database = Database::fresh("cache-aside", &MIGRATIONS).await?;
        let keys = Keys::fresh("cache-aside").await?;
        let child = serve(&database, &keys).args(arguments).start().await?;
        Ok(Self { child, http: client()?, database, keys })
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        let url = format!("{}/{path}", self.child.url());
        Ok(self.http.request(method, url).send().await?)
    }

    async fn get(&self, id: i64) -> anyhow::Result<Response> {
        self.ask(Method::GET, &format!("users/{id}")).await
    }

    async fn post(&self, user: &Value) -> anyhow::Result<Response> {
        let url = format!("{}/users", self.child.url());
        Ok(self.http.post(url).json(user).send().await?)
    }

    async fn put(&self, id: i64, user: &Value) -> anyhow::Result<Response> {
        let url = format!("{}/users/{id}", self.child.url());
        Ok(self.http.put(url).json(user).send().await?)
    }

    /// Makes a user of this name, which must succeed.
    async fn create(&self, name: &str) -> anyhow::Result<i64> {
        let response = self.post(&named(name)).await?;
        ensure!(response.status() == 201, "{name}: {}", response.text().await?);
        response.json::<Value>().await?["id"].as_i64().context("no id")
    }
}

fn serve(database: &Database, keys: &Keys) -> ChildBuilder {
    let serve = Child::serve("cache-aside").database(database);
    serve.args(&["--redis", keys.url(), "--key-prefix", keys.prefix()])
}

fn named(name: &str) -> Value {
    json!({ "name": name, "email": format!("{}@example.org", name.to_lowercase()) })
}

async fn a_user_is_made_and_read_from_the_database_and_then_from_redis() -> Outcome {
    let api = Api::start(&[]).await?;
    let created = api.post(&named("Ada")).await?;
    ensure!(created.status() == 201);
    let location = header(&created, "location").to_owned();
    let user: Value = created.json().await?;
    let id = user["id"].as_i64().context("no id")?;
    ensure!(location == format!("/users/{id}"), "{location}");
    ensure!(user["name"] == "Ada" && user["email"] == "ada@example.org", "{user}");
    let first = api.get(id).await?;
    ensure!(first.status() == 200 && header(&first, "cache-status") == "redis; fwd=miss; stored");
    ensure!(first.json::<Value>().await? == user);
    let second = api.get(id).await?;
    let ttl = header(&second, "cache-status").strip_prefix("redis; hit; ttl=").map(str::to_owned);
    let ttl: u64 = ttl.with_context(|| format!("{second:?}"))?.parse()?;
    ensure!((3_200..=3_600).contains(&ttl), "an hour, less a tenth at most: {ttl}");
    ensure!(second.json::<Value>().await? == user);
    Ok(())
}
