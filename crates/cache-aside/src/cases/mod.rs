//! The cache-aside answer's table of calls.

mod bad_input;
mod crowd;

use anyhow::{Context, ensure};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use conform::{
    case::{Outcome, Suite},
    cases,
    http::{header, problem},
    target::{Target, eventually},
};

cases! {
    Plain a_user_is_made_and_read_and_read_again_from_the_cache: "POST /users: 201 with Location and the user; GET: 200 and the same user, the second time a hit", "The cache is not to be noticed, except by the clock.";
    Plain a_change_is_seen_by_the_next_read: "PUT: 200 and the user; the next GET shows the change, however hot the old value was", "Somebody who changes a name and then sees the old one changes it again, and then calls.";
    Plain a_deleted_user_is_not_found: "DELETE: 204 without a body; then 404, and the address is free", "A deleted user that the cache still shows is a leak.";
    Plain a_cached_absence_is_a_hit_until_the_user_is_made: "404 twice, the second time a hit for ten seconds at most; once the user is made, 200", "Whoever asks for nobody again and again must not reach the database, and whoever signs up must be found.";
    Plain a_user_that_nobody_has_cannot_be_changed: "GET, PUT and DELETE of an id that nobody has: 404", "A change must not make a user.";
    Plain a_taken_email_address_is_a_conflict: "Somebody else's address: 409, whatever the case of its letters; one's own: 200", "Two accounts with one address are one account for whoever resets the password.";
    Plain many_users_are_read_at_once: "GET /users?ids=…: 200, the users in the order asked for, each once, and who is missing", "A page of a hundred must not be a hundred requests, and must be forgotten one by one.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200; HEAD of a user: as GET, without the body", "The balancer asks.";
}

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The server needs no options. It is asked for users that it has made itself, so it may hold others; it counts \
    their ids up. Its cache may be anything, as long as `Cache-Status` (RFC 9211) says what it did; a user stays \
    in it for an hour at most, and the lack of one for ten seconds. It may go around its cache while that is \
    away or not yet there, but when all is well a second read has to be a hit.";

/// The table, what may be sent by mistake, and crowds.
pub fn suite() -> Suite {
    Suite { needs: NEEDS, cases: [cases(), bad_input::cases(), crowd::cases()].concat() }
}

/// The service in its own words.
#[derive(Clone, Copy)]
struct Api<'a>(&'a Target);

impl Api<'_> {
    /// A user of this name, with an address that no other run takes.
    fn user(self, name: &str) -> Value {
        json!({ "name": name, "email": self.email(name) })
    }

    fn email(self, name: &str) -> String {
        format!("{}-{}@example.org", name.to_lowercase().replace(' ', "-"), self.0.tag())
    }

    async fn ask(self, method: Method, path: &str) -> anyhow::Result<Response> {
        self.0.ask(method, path).await
    }

    async fn get(self, id: i64) -> anyhow::Result<Response> {
        self.0.get(&format!("users/{id}")).await
    }

    async fn post(self, user: &Value) -> anyhow::Result<Response> {
        Ok(self.0.post_patiently("users", user).await?.0)
    }

    async fn put(self, id: i64, user: &Value) -> anyhow::Result<Response> {
        self.0.send(self.0.request(Method::PUT, &format!("users/{id}")).json(user)).await
    }

    /// Makes a user of this name, which must succeed.
    async fn create(self, name: &str) -> anyhow::Result<i64> {
        let response = self.post(&self.user(name)).await?;
        ensure!(response.status() == 201, "{name}: {}", response.text().await?);
        response.json::<Value>().await?["id"].as_i64().context("no id")
    }

    /// Reads until the answer comes from the cache: it may not be there yet, and what is cached may have gone.
    async fn hit(self, id: i64) -> anyhow::Result<Response> {
        eventually("the second read is a hit: see Cache-Status", async || {
            let response = self.get(id).await?;
            Ok(is_hit(&response).then_some(response))
        })
        .await
    }
}

/// One thing that `Cache-Status` says of the cache nearest to the server.
fn cache_status<'a>(response: &'a Response, parameter: &str) -> Option<&'a str> {
    let nearest = header(response, "cache-status").split(',').next().unwrap_or_default();
    nearest.split(';').skip(1).find_map(|it| it.trim().strip_prefix(parameter))
}

fn is_hit(response: &Response) -> bool {
    cache_status(response, "hit") == Some("")
}

/// Seconds that a hit has left.
fn ttl(response: &Response) -> anyhow::Result<i64> {
    let ttl = cache_status(response, "ttl=").context("a hit without its ttl")?;
    Ok(ttl.parse()?)
}

/// The name that a read was answered with.
async fn name(response: Response) -> anyhow::Result<String> {
    let status = response.status();
    let user: Value = response.json().await?;
    ensure!(status == 200, "{status}: {user}");
    Ok(user["name"].as_str().context("no name")?.to_owned())
}

async fn a_user_is_made_and_read_and_read_again_from_the_cache(target: &Target) -> Outcome {
    let api = Api(target);
    let created = api.post(&api.user("Ada")).await?;
    ensure!(created.status() == 201, "{}", created.status());
    let location = header(&created, "location").to_owned();
    let user: Value = created.json().await?;
    let id = user["id"].as_i64().context("no id")?;
    ensure!(location == format!("/users/{id}"), "Location is {location:?}");
    ensure!(user["name"] == "Ada" && user["email"] == api.email("Ada"), "{user}");
    let first = api.get(id).await?;
    ensure!(first.status() == 200 && !is_hit(&first), "nobody has read it before: {first:?}");
    ensure!(cache_status(&first, "fwd=").is_some(), "Cache-Status does not say why: {first:?}");
    ensure!(first.json::<Value>().await? == user, "what is read is not what was made");
    let second = api.hit(id).await?;
    let ttl = ttl(&second)?;
    ensure!((0..=3_600).contains(&ttl), "an hour at most: {ttl}");
    ensure!(second.json::<Value>().await? == user, "what is cached is not what was made");
    Ok(())
}

async fn a_change_is_seen_by_the_next_read(target: &Target) -> Outcome {
    let api = Api(target);
    let id = api.create("Lovelace").await?;
    for round in 0..10 {
        api.hit(id).await?;
        let new = json!({ "name": format!("Ada {round}"), "email": api.email("Lovelace") });
        let changed = api.put(id, &new).await?;
        ensure!(changed.status() == 200, "{}", changed.status());
        let changed: Value = changed.json().await?;
        ensure!(changed["name"] == new["name"] && changed["id"] == id, "{changed}");
        ensure!(changed["updated_at"].as_str() > changed["created_at"].as_str(), "{changed}");
        let seen = name(api.get(id).await?).await?;
        ensure!(new["name"] == seen, "{seen} is stale: {} was answered", new["name"]);
    }
    Ok(())
}

async fn a_deleted_user_is_not_found(target: &Target) -> Outcome {
    let api = Api(target);
    let id = api.create("Deleted").await?;
    api.hit(id).await?;
    let path = format!("users/{id}");
    let deleted = api.ask(Method::DELETE, &path).await?;
    ensure!(deleted.status() == 204 && deleted.bytes().await?.is_empty());
    problem(api.get(id).await?, 404).await?;
    problem(api.ask(Method::DELETE, &path).await?, 404).await?;
    // The address is free again, and the id is not given out again.
    ensure!(api.create("Deleted").await? > id, "an id was given out twice");
    Ok(())
}

async fn a_cached_absence_is_a_hit_until_the_user_is_made(target: &Target) -> Outcome {
    let api = Api(target);
    let last = api.create("Before").await?;
    // Some more than the next, for a server that skips a few.
    let next = last + 1..=last + 5;
    for id in next.clone() {
        problem(api.get(id).await?, 404).await?;
    }
    let absent = api.hit(last + 1).await?;
    let ttl = ttl(&absent)?;
    problem(absent, 404).await?;
    ensure!(ttl <= 10, "an absence lives for ten seconds at most: {ttl}");
    // All of them are used up, so that no other case meets an absence that was left behind.
    let mut made = Vec::new();
    while made.last().copied().unwrap_or(last) < last + 5 {
        made.push(api.create(&format!("Grace {}", made.len())).await?);
        ensure!(made.len() <= 5 && made.is_sorted(), "ids should be counted up: {made:?}");
    }
    ensure!(next.contains(&made[0]), "the next id should be near {last}: {made:?}");
    for (n, id) in made.into_iter().enumerate() {
        ensure!(name(api.get(id).await?).await? == format!("Grace {n}"));
    }
    Ok(())
}

/// The largest id but one that there can be.
const NOBODY: i64 = i64::MAX - 1;

async fn a_user_that_nobody_has_cannot_be_changed(target: &Target) -> Outcome {
    let api = Api(target);
    problem(api.put(NOBODY, &api.user("Nobody")).await?, 404).await?;
    problem(api.ask(Method::DELETE, &format!("users/{NOBODY}")).await?, 404).await?;
    problem(api.get(NOBODY).await?, 404).await?;
    Ok(())
}

async fn a_taken_email_address_is_a_conflict(target: &Target) -> Outcome {
    let api = Api(target);
    let (first, second) = (api.create("Taken").await?, api.create("Hopper").await?);
    problem(api.post(&api.user("Taken")).await?, 409).await?;
    // Nobody's mail server tells letters by case.
    let shouted = api.email("Taken").to_uppercase();
    problem(api.post(&json!({ "name": "A", "email": shouted })).await?, 409).await?;
    problem(api.put(second, &api.user("Taken")).await?, 409).await?;
    ensure!(name(api.get(second).await?).await? == "Hopper", "a refused change changes nothing");
    let own = api.put(first, &json!({ "name": "A", "email": api.email("Taken") })).await?;
    ensure!(own.status() == 200, "one's own address is no conflict: {}", own.status());
    Ok(())
}

async fn many_users_are_read_at_once(target: &Target) -> Outcome {
    let api = Api(target);
    let (one, two) = (api.create("One").await?, api.create("Two").await?);
    api.hit(one).await?;
    let path = format!("users?ids={two},{NOBODY},{one},{two}");
    let all_hit = eventually("all of them are hits: see Cache-Status", async || {
        let many = target.get(&path).await?;
        let hit = is_hit(&many);
        ensure!(many.status() == 200, "{}", many.status());
        let many: Value = many.json().await?;
        let names = many["users"].as_array().context("users")?.iter();
        let names: Vec<_> = names.map(|user| user["name"].as_str()).collect();
        ensure!(names == [Some("Two"), Some("One")], "{many}");
        ensure!(many["missing"] == json!([NOBODY]), "{many}");
        Ok(hit.then_some(()))
    });
    all_hit.await?;
    // What was read together is known one by one, and forgotten one by one.
    let new = json!({ "name": "Second", "email": api.email("Two") });
    ensure!(api.put(two, &new).await?.status() == 200);
    let many: Value = target.get(&path).await?.json().await?;
    ensure!(many["users"][0]["name"] == "Second", "{many}");
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    let api = Api(target);
    ensure!(target.get("healthz").await?.status() == 200);
    let ready: Value = target.get("readyz").await?.json().await?;
    ensure!(ready["status"] == "ready", "{ready}");
    let id = api.create("Head").await?;
    let head = api.ask(Method::HEAD, &format!("users/{id}")).await?;
    ensure!(head.status() == 200 && head.bytes().await?.is_empty());
    Ok(())
}
