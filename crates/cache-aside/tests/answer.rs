//! Does the cache-aside answer do what its table of calls says? Over HTTP, as its clients would.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use cache_aside::MIGRATIONS;
use conform::http::{client, header, problem};
use lab::{
    child::{Child, ChildBuilder},
    database::Database,
    fault::{Fault, Proxy},
    harness::{Outcome, Served, eventually, run},
    keys::Keys,
};
use redis::AsyncCommands;
use reqwest::{Method, Response};
use serde_json::{Value, json};

fn main() -> ExitCode {
    run(cache_aside::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let database = Database::fresh("cache-aside", &MIGRATIONS).await?;
    let keys = Keys::fresh("cache-aside").await?;
    // With time enough: no case is about a time-out, and a busy machine must not run into one.
    let calm = ["--redis-timeout", "3", "--database-timeout", "10", "--lease", "30"];
    let place = ["--redis", keys.url(), "--key-prefix", keys.prefix()];
    let child = Child::serve("cache-aside").database(&database).args(&place).args(&calm);
    Ok(Served::new(child.start().await?, (database, keys)))
}

lab::tests![
    a_change_is_seen_by_the_next_read_in_every_process,
    a_deleted_user_is_found_in_no_process,
    a_value_in_redis_that_is_not_ours_is_replaced,
    a_value_of_another_version_or_life_or_that_is_damaged_is_not_read,
    a_user_lies_under_its_key_for_at_most_an_hour,
    an_expired_user_is_loaded_again,
    a_loader_that_died_does_not_hold_up_others_for_long,
    without_redis_it_answers_and_hits_return_by_themselves,
    a_change_that_cannot_reach_redis_is_seen_where_redis_is_near,
    without_the_database_nothing_is_believed_for_long,
    a_clean_stop_ends_well,
];

/// A service of the test's own, spoken to in its own words.
struct Api {
    child: Child,
    http: reqwest::Client,
    database: Arc<Database>,
    keys: Arc<Keys>,
}

impl Api {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let (database, keys) = fresh().await?;
        let child = serve(&database, &keys).args(&CALM).args(arguments);
        Self::with(child, database, keys).await?.believing().await
    }

    async fn with(
        child: ChildBuilder,
        database: Arc<Database>,
        keys: Arc<Keys>,
    ) -> anyhow::Result<Self> {
        Ok(Self { child: child.start().await?, http: client()?, database, keys })
    }

    /// A second process before the same servers.
    async fn beside(&self) -> anyhow::Result<Self> {
        let (database, keys) = (Arc::clone(&self.database), Arc::clone(&self.keys));
        let child = serve(&database, &keys).args(&CALM);
        Self::with(child, database, keys).await?.believing().await
    }

    /// Waits until Redis is believed: a busy machine may take longer for that than a start waits.
    async fn believing(self) -> anyhow::Result<Self> {
        eventually("Redis is believed", async || {
            let ready: Value = self.ask(Method::GET, "readyz").await?.json().await?;
            Ok((ready["redis"] == "believed").then_some(()))
        })
        .await?;
        Ok(self)
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

async fn fresh() -> anyhow::Result<(Arc<Database>, Arc<Keys>)> {
    let database = Database::fresh("cache-aside", &MIGRATIONS).await?;
    Ok((Arc::new(database), Arc::new(Keys::fresh("cache-aside").await?)))
}

/// With time enough: only where a time-out is tried may a busy machine run into one.
const CALM: [&str; 6] = ["--redis-timeout", "3", "--database-timeout", "10", "--lease", "30"];

fn serve(database: &Database, keys: &Keys) -> ChildBuilder {
    serve_through(database, keys, keys.url())
}

/// With this way to Redis.
fn serve_through(database: &Database, keys: &Keys, redis: &str) -> ChildBuilder {
    let serve = Child::serve("cache-aside").database(database);
    serve.args(&["--redis", redis, "--key-prefix", keys.prefix()])
}

fn named(name: &str) -> Value {
    json!({ "name": name, "email": format!("{}@example.org", name.to_lowercase()) })
}

/// The name that a read was answered with.
async fn name(response: Response) -> anyhow::Result<String> {
    let status = response.status();
    let user: Value = response.json().await?;
    ensure!(status == 200, "{status}: {user}");
    Ok(user["name"].as_str().context("no name")?.to_owned())
}

async fn a_change_is_seen_by_the_next_read_in_every_process() -> Outcome {
    let other = Api::start(&[]).await?;
    let api = other.beside().await?;
    let id = api.create("Ada").await?;
    for round in 0..30 {
        // Hot in both.
        for api in [&api, &other, &api] {
            api.get(id).await?;
        }
        let new = format!("Ada {round}");
        let changed = api.put(id, &json!({ "name": new, "email": "ada@example.org" })).await?;
        ensure!(changed.status() == 200);
        let changed: Value = changed.json().await?;
        ensure!(changed["name"] == new && changed["id"] == id, "{changed}");
        ensure!(changed["updated_at"].as_str() > changed["created_at"].as_str(), "{changed}");
        let seen = (name(other.get(id).await?).await?, name(api.get(id).await?).await?);
        ensure!(seen == (new.clone(), new), "{seen:?}");
    }
    Ok(())
}

async fn a_deleted_user_is_found_in_no_process() -> Outcome {
    let other = Api::start(&[]).await?;
    let api = other.beside().await?;
    let id = api.create("Ada").await?;
    ensure!(other.get(id).await?.status() == 200 && api.get(id).await?.status() == 200);
    let deleted = api.ask(Method::DELETE, &format!("users/{id}")).await?;
    ensure!(deleted.status() == 204 && deleted.bytes().await?.is_empty());
    for api in [&other, &api] {
        problem(api.get(id).await?, 404).await?;
    }
    problem(api.ask(Method::DELETE, &format!("users/{id}")).await?, 404).await?;
    // The address is free again, and the id is not given out again.
    ensure!(api.create("Ada").await? > id);
    Ok(())
}

async fn a_value_in_redis_that_is_not_ours_is_replaced() -> Outcome {
    let api = Api::start(&[]).await?;
    let id = api.create("Ada").await?;
    let key = format!("{}user:{id}", api.keys.prefix());
    let mut redis = api.keys.connection().await?;
    let user = format!(r#"{{"id":{id},"name":"Eve","email":"eve@example.org"}}"#);
    for rubbish in [
        b"".to_vec(),
        b"nonsense".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        user.clone().into_bytes(),
        format!("user/1 x x 1 1\n{user}").into_bytes(),
        b"lease/1 nobody nothing".to_vec(),
        vec![b'x'; 1_000_000],
    ] {
        let () = redis.set(&key, &rubbish).await?;
        is_replaced(&api, id).await?;
    }
    let () = redis.del(&key).await?;
    let () = redis.lpush(&key, "a list").await?;
    is_replaced(&api, id).await?;
    let () = redis.del(&key).await?;
    let () = redis.hset(&key, "a", "hash").await?;
    let many = api.ask(Method::GET, &format!("users?ids={id}")).await?;
    ensure!(many.json::<Value>().await?["users"][0]["name"] == "Ada");
    Ok(())
}

async fn is_replaced(api: &Api, id: i64) -> Outcome {
    let read = api.get(id).await?;
    ensure!(header(&read, "cache-status") == "redis; fwd=miss; stored", "{read:?}");
    ensure!(name(read).await? == "Ada");
    ensure!(header(&api.get(id).await?, "cache-status").starts_with("redis; hit"));
    Ok(())
}

async fn a_value_of_another_version_or_life_or_that_is_damaged_is_not_read() -> Outcome {
    let api = Api::start(&[]).await?;
    let id = api.create("Ada").await?;
    let key = format!("{}user:{id}", api.keys.prefix());
    let mut redis = api.keys.connection().await?;
    for (part, other) in [(0, "user/2"), (0, "user/0"), (1, "0123456789abcdef"), (5, "1\n{}")] {
        api.get(id).await?;
        let ours: String = redis.get(&key).await?;
        let () = redis.set(&key, &ours).await?;
        ensure!(header(&api.get(id).await?, "cache-status").starts_with("redis; hit"), "{ours}");
        let mut words: Vec<_> = ours.split(' ').collect();
        words[part] = other;
        let () = redis.set(&key, words.join(" ")).await?;
        is_replaced(&api, id).await?;
    }
    // One that was tampered with, or cut short, is not sent either.
    let ours: String = redis.get(&key).await?;
    for bad in [ours.replace("Ada", "Eve"), ours[..ours.len() - 1].to_owned()] {
        let () = redis.set(&key, bad).await?;
        is_replaced(&api, id).await?;
    }
    Ok(())
}

async fn a_user_lies_under_its_key_for_at_most_an_hour() -> Outcome {
    let api = Api::start(&[]).await?;
    let mut redis = api.keys.connection().await?;
    let mut lives = std::collections::HashSet::new();
    for n in 0..20 {
        let id = api.create(&format!("Ada{n}")).await?;
        api.get(id).await?;
        let life: i64 = redis.pttl(format!("{}user:{id}", api.keys.prefix())).await?;
        ensure!((3_200_000..=3_600_000).contains(&life), "{life} ms");
        lives.insert(life / 1_000);
    }
    ensure!(lives.len() > 5, "lives should be spread: {lives:?}");
    Ok(())
}

async fn an_expired_user_is_loaded_again() -> Outcome {
    let api = Api::start(&["--ttl", "0.5", "--beta", "0"]).await?;
    let id = api.create("Ada").await?;
    api.get(id).await?;
    eventually("it expires", async || {
        let read = api.get(id).await?;
        Ok((header(&read, "cache-status") == "redis; fwd=miss; stored").then_some(()))
    })
    .await
}

async fn a_loader_that_died_does_not_hold_up_others_for_long() -> Outcome {
    let api = Api::start(&[]).await?;
    let id = api.create("Ada").await?;
    let proxy = Proxy::to_url(api.database.url()).await?;
    let doomed = serve(&api.database, &api.keys)
        .env("DATABASE_URL", proxy.url(api.database.url())?)
        .args(&["--database-timeout", "30", "--lease", "60"]);
    let mut doomed = doomed.start().await?;
    proxy.set(Fault::BlackHole);
    let key = format!("{}user:{id}", api.keys.prefix());
    let url = format!("{}/users/{id}", doomed.url());
    let stuck = tokio::spawn(api.http.get(url).send());
    let redis = api.keys.connection().await?;
    eventually("it has the lease", async || {
        let held: Option<String> = redis.clone().get(&key).await?;
        Ok(held.filter(|held| held.starts_with("lease/")))
    })
    .await?;
    doomed.kill().await?;
    ensure!(stuck.await?.is_err());
    // Its lease would last a minute. Nobody waits for it longer than the patience.
    ensure!(name(api.get(id).await?).await? == "Ada");
    Ok(())
}

async fn without_redis_it_answers_and_hits_return_by_themselves() -> Outcome {
    let (database, keys) = fresh().await?;
    let proxy = Proxy::to_url(keys.url()).await?;
    proxy.set(Fault::Cut);
    let child = serve_through(&database, &keys, &proxy.url(keys.url())?);
    let child = child.args(&["--database-timeout", "10"]);
    let api = Api::with(child, database, keys).await?;
    let id = api.create("Ada").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let began = Instant::now();
        let read = eventually("the breaker opens", async || {
            let read = api.get(id).await?;
            Ok((header(&read, "cache-status") == "redis; fwd=bypass").then_some(read))
        })
        .await?;
        ensure!(name(read).await? == "Ada");
        let nobody = api.get(id + 1_000).await?;
        ensure!(header(&nobody, "cache-status") == "redis; fwd=bypass", "{nobody:?}");
        problem(nobody, 404).await?;
        let ids = format!("users?ids={id}");
        let many = api.ask(Method::GET, &ids).await?;
        ensure!(header(&many, "cache-status") == "redis; fwd=bypass", "{many:?}");
        ensure!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        let ready: Value = api.ask(Method::GET, "readyz").await?.json().await?;
        ensure!(ready == json!({ "status": "ready", "redis": "away" }), "{ready}");
        proxy.heal();
        eventually("hits return", async || {
            let read = api.get(id).await?;
            Ok(header(&read, "cache-status").starts_with("redis; hit").then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn a_change_that_cannot_reach_redis_is_seen_where_redis_is_near() -> Outcome {
    let near = Api::start(&[]).await?;
    let proxy = Proxy::to_url(near.keys.url()).await?;
    let child = serve_through(&near.database, &near.keys, &proxy.url(near.keys.url())?);
    let child = child.args(&["--database-timeout", "10"]);
    let (database, keys) = (Arc::clone(&near.database), Arc::clone(&near.keys));
    let far = Api::with(child, database, keys).await?;
    let id = near.create("Ada").await?;
    for (n, fault) in [Fault::Cut, Fault::BlackHole, Fault::Cut].into_iter().enumerate() {
        eventually("hot where Redis is near", async || {
            Ok(header(&near.get(id).await?, "cache-status").starts_with("redis; hit").then_some(()))
        })
        .await?;
        proxy.set(fault);
        let began = Instant::now();
        let new = json!({ "name": format!("Ada {n}"), "email": "ada@example.org" });
        ensure!(far.put(id, &new).await?.status() == 200);
        let took = began.elapsed();
        ensure!(took >= Duration::from_secs(1), "answered before it was safe: {took:?}");
        ensure!(name(near.get(id).await?).await? == format!("Ada {n}"), "a stale value");
        proxy.heal();
    }
    Ok(())
}

async fn without_the_database_nothing_is_believed_for_long() -> Outcome {
    let (database, keys) = fresh().await?;
    let proxy = Proxy::to_url(database.url()).await?;
    let child = serve(&database, &keys)
        .env("DATABASE_URL", proxy.url(database.url())?)
        .args(&["--database-timeout", "10"]);
    let api = Api::with(child, database, keys).await?;
    let id = api.create("Ada").await?;
    api.get(id).await?;
    proxy.set(Fault::Cut);
    let away = eventually("the last confirmation is too old", async || {
        let read = api.get(id).await?;
        Ok((read.status() == 503).then_some(read))
    })
    .await?;
    ensure!(header(&away, "retry-after") == "1", "{away:?}");
    problem(away, 503).await?;
    problem(api.ask(Method::GET, "readyz").await?, 503).await?;
    problem(api.post(&named("Grace")).await?, 503).await?;
    problem(api.put(id, &named("Grace")).await?, 503).await?;
    problem(api.ask(Method::DELETE, &format!("users/{id}")).await?, 503).await?;
    problem(api.ask(Method::GET, &format!("users?ids={id}")).await?, 503).await?;
    proxy.heal();
    ensure!(name(api.get(id).await?).await? == "Ada", "the next request works");
    Ok(())
}

async fn a_clean_stop_ends_well() -> Outcome {
    let mut api = Api::start(&[]).await?;
    let id = api.create("Ada").await?;
    api.get(id).await?;
    let ended = api.child.stop().await?;
    ensure!(ended.success(), "{ended}: {}", api.child.log());
    Ok(())
}
