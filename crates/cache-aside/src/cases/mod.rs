//! The cache-aside answer's table of calls.

mod bad_input;
pub mod client;
mod crowd;

use anyhow::{Context, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use client::{Client, cache_status, is_hit, name, ttl};
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

async fn a_user_is_made_and_read_and_read_again_from_the_cache(target: &Target) -> Outcome {
    let client = Client::of(target);
    let created = client.create(&client.user("Ada")).await?;
    ensure!(created.status() == 201, "{}", created.status());
    let location = header(&created, "location").to_owned();
    let user: Value = created.json().await?;
    let id = user["id"].as_i64().context("no id")?;
    ensure!(location == format!("/users/{id}"), "Location is {location:?}");
    ensure!(user["name"] == "Ada" && user["email"] == client.email("Ada"), "{user}");
    let first = client.read(id).await?;
    ensure!(first.status() == 200 && !is_hit(&first), "nobody has read it before: {first:?}");
    ensure!(cache_status(&first, "fwd=").is_some(), "Cache-Status does not say why: {first:?}");
    ensure!(first.json::<Value>().await? == user, "what is read is not what was made");
    let second = client.hit(id).await?;
    let ttl = ttl(&second)?;
    ensure!((0..=3_600).contains(&ttl), "an hour at most: {ttl}");
    ensure!(second.json::<Value>().await? == user, "what is cached is not what was made");
    Ok(())
}

async fn a_change_is_seen_by_the_next_read(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Lovelace").await?;
    for round in 0..10 {
        client.hit(id).await?;
        let new = json!({ "name": format!("Ada {round}"), "email": client.email("Lovelace") });
        let changed = client.change(id, &new).await?;
        ensure!(changed.status() == 200, "{}", changed.status());
        let changed: Value = changed.json().await?;
        ensure!(changed["name"] == new["name"] && changed["id"] == id, "{changed}");
        ensure!(changed["updated_at"].as_str() > changed["created_at"].as_str(), "{changed}");
        let seen = name(client.read(id).await?).await?;
        ensure!(new["name"] == seen, "{seen} is stale: {} was answered", new["name"]);
    }
    Ok(())
}

async fn a_deleted_user_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Deleted").await?;
    client.hit(id).await?;
    let deleted = client.delete(id).await?;
    ensure!(deleted.status() == 204 && deleted.bytes().await?.is_empty());
    problem(client.read(id).await?, 404).await?;
    problem(client.delete(id).await?, 404).await?;
    // The address is free again, and the id is not given out again.
    ensure!(client.sign_up("Deleted").await? > id, "an id was given out twice");
    Ok(())
}

async fn a_cached_absence_is_a_hit_until_the_user_is_made(target: &Target) -> Outcome {
    let client = Client::of(target);
    for n in 0..20 {
        let last = client.sign_up(&format!("Before {n}")).await?;
        if absence_until_made(&client, last).await? {
            return Ok(());
        }
    }
    bail!("the ids after that of a new user are never free, or never given out next")
}

/// Asks for the ids that are given out next, and then makes their users. False if another case took the ids first.
async fn absence_until_made(client: &Client, last: i64) -> anyhow::Result<bool> {
    // Some more than the next, for a server that skips a few.
    let next = last + 1..=last + 5;
    for id in next.clone() {
        let nobody = client.read(id).await?;
        if nobody.status() == 200 {
            return Ok(false);
        }
        problem(nobody, 404).await?;
    }
    let absent = client.hit(last + 1).await?;
    if absent.status() == 200 {
        return Ok(false);
    }
    let ttl = ttl(&absent)?;
    problem(absent, 404).await?;
    ensure!(ttl <= 10, "an absence lives for ten seconds at most: {ttl}");
    // All of them are used up, so that no other case meets an absence that was left behind.
    let mut made = Vec::new();
    while made.last().copied().unwrap_or(last) < last + 5 {
        let grace = format!("Grace {last} {}", made.len());
        made.push(client.sign_up(&grace).await?);
        ensure!(made.len() <= 5 && made.is_sorted(), "ids should be counted up: {made:?}");
    }
    let mut seen = false;
    for (n, id) in made.into_iter().enumerate().filter(|(_, id)| next.contains(id)) {
        ensure!(name(client.read(id).await?).await? == format!("Grace {last} {n}"));
        seen = true;
    }
    Ok(seen)
}

/// The largest id but one that there can be.
const NOBODY: i64 = i64::MAX - 1;

async fn a_user_that_nobody_has_cannot_be_changed(target: &Target) -> Outcome {
    let client = Client::of(target);
    problem(client.change(NOBODY, &client.user("Nobody")).await?, 404).await?;
    problem(client.delete(NOBODY).await?, 404).await?;
    problem(client.read(NOBODY).await?, 404).await?;
    Ok(())
}

async fn a_taken_email_address_is_a_conflict(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (first, second) = (client.sign_up("Taken").await?, client.sign_up("Hopper").await?);
    problem(client.create(&client.user("Taken")).await?, 409).await?;
    // Nobody's mail server tells letters by case.
    let shouted = client.email("Taken").to_uppercase();
    problem(client.create(&json!({ "name": "A", "email": shouted })).await?, 409).await?;
    problem(client.change(second, &client.user("Taken")).await?, 409).await?;
    ensure!(
        name(client.read(second).await?).await? == "Hopper",
        "a refused change changes nothing"
    );
    let own = client.change(first, &json!({ "name": "A", "email": client.email("Taken") })).await?;
    ensure!(own.status() == 200, "one's own address is no conflict: {}", own.status());
    Ok(())
}

async fn many_users_are_read_at_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (one, two) = (client.sign_up("One").await?, client.sign_up("Two").await?);
    client.hit(one).await?;
    let ids = [two, NOBODY, one, two];
    let all_hit = eventually("all of them are hits: see Cache-Status", async || {
        let many = client.read_many(&ids).await?;
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
    let new = json!({ "name": "Second", "email": client.email("Two") });
    ensure!(client.change(two, &new).await?.status() == 200);
    let many: Value = client.read_many(&ids).await?.json().await?;
    ensure!(many["users"][0]["name"] == "Second", "{many}");
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    let client = Client::of(target);
    ensure!(target.get("healthz").await?.status() == 200);
    let ready: Value = client.readiness().await?.json().await?;
    ensure!(ready["status"] == "ready", "{ready}");
    let id = client.sign_up("Head").await?;
    let head = target.ask(Method::HEAD, &format!("users/{id}")).await?;
    ensure!(head.status() == 200 && head.bytes().await?.is_empty());
    Ok(())
}
