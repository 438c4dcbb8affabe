//! The cache-aside answer's table of calls.

mod bad_input;
pub mod client;
mod crowd;

use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::{Client, cache_status, is_hit, name, ttl};
use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{ends_with, equal, expect, integer, json_of, list, same_fields, status, text},
    http::{header, lives_and_is_ready, one_wins, problem},
    target::{Target, eventually},
};

cases! {
    Plain a_user_is_made_and_read_and_read_again_from_the_cache: "POST /users: 201 with Location and the user; GET: 200 and the same user, the second time a hit", "A cache may make reads faster. Nobody may notice anything else of it.";
    Plain a_change_is_seen_by_the_next_read: "PUT: 200 and the user; the next GET shows the change, however hot the old value was", "A user who sees the old name after a change makes the change again, and then calls.";
    Plain a_deleted_user_is_not_found: "DELETE: 204 without a body; then 404, and the address is free", "A deleted user that the cache still shows is a leak.";
    Plain a_cached_absence_is_a_hit_until_the_user_is_made: "A user that nobody has: 404, the second time as a hit with a ttl of ten seconds at most; once the user is made, 200", "A client that keeps asking for nobody must not reach the database, and a user who signs up must be found.";
    Plain a_user_that_nobody_has_cannot_be_changed: "GET, PUT and DELETE of an id that nobody has: 404", "A change must not make a user.";
    Plain a_taken_email_address_is_a_conflict: "Somebody else's address: 409, whatever the case of its letters; one's own: 200", "Two accounts with one address are one account for the person who resets the password.";
    Plain two_spellings_of_a_mailbox_are_one_address: "The same address in other letters: 409, also for letters beyond ASCII, for composed and decomposed ones, and for the punycode of a domain", "`lower()` of a database may fold A to Z only.";
    Plain a_change_says_which_version_it_is_for: "PUT without If-Match: 428; with the ETag of an older version: 412, and nothing is changed; with that of GET, POST or PUT, or with *: 200", "Two clients that read and then write must not undo each other's change.";
    Load of_twenty_changes_of_one_version_one_is_made: "Of twenty PUTs with the same ETag at once, one gets 200 and the others 412", "If a program compares first and changes afterwards, that is a race.";
    Plain many_users_are_read_at_once: "GET /users?ids=…: 200, the users in the order asked for, each once, and who is missing", "A page of a hundred users must not be a hundred requests, and a change of one of them must be seen in it.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200; HEAD of a user: as GET, without the body", "A load balancer asks this before it sends clients.";
}

/// All cases: those of the table, of bad input, and of crowds.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [cases(), bad_input::cases(), crowd::cases()].concat(),
    }
}

async fn a_user_is_made_and_read_and_read_again_from_the_cache(target: &Target) -> Outcome {
    let client = Client::of(target);
    let created = client.create(&client.user("Ada")).await?;
    let location = header(&created, "location").to_owned();
    let user = json_of(created, 201).await?;
    let id = integer(&user, "id")?;
    ends_with("the header `Location`", &location, &format!("/users/{id}"))?;
    same_fields(&user, &client.user("Ada"), &["name", "email"])?;
    let first = client.read(id).await?;
    let says = header(&first, "cache-status").to_owned();
    let missed = !is_hit(&first) && cache_status(&first, "fwd=").is_some();
    expect(missed, "`fwd` and no `hit` in Cache-Status at the first read", format!("{says:?}"))?;
    let all = ["id", "name", "email", "created_at", "updated_at"];
    same_fields(&json_of(first, 200).await?, &user, &all)?;
    let second = client.hit(id).await?;
    let ttl = ttl(&second)?;
    expect((0..=3_600).contains(&ttl), "a ttl of 3600 seconds at most in Cache-Status", ttl)?;
    same_fields(&json_of(second, 200).await?, &user, &all)
}

async fn a_change_is_seen_by_the_next_read(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Lovelace").await?;
    for round in 0..10 {
        client.hit(id).await?;
        let new = json!({ "name": format!("Ada {round}"), "email": client.email("Lovelace") });
        let changed = client.change(id, &new).await?;
        let changed = json_of(changed, 200).await?;
        same_fields(&changed, &new, &["name", "email"])?;
        equal("the id", changed["id"].clone(), id)?;
        let (made, put) = (instant(&changed, "created_at")?, instant(&changed, "updated_at")?);
        expect(put >= made, "`updated_at` not to be before `created_at`", &changed)?;
        let seen = name(client.read(id).await?).await?;
        equal("the name after the PUT was answered", seen, new["name"].clone())?;
    }
    Ok(())
}

async fn a_deleted_user_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("Deleted").await?;
    client.hit(id).await?;
    status(&client.delete(id).await?, 204)?;
    problem(client.read(id).await?, 404).await?;
    problem(client.delete(id).await?, 404).await?;
    // The address is free again, and the id is not given out again.
    let next = client.sign_up("Deleted").await?;
    expect(next > id, format!("an id above {id}, which was given out already"), next)
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
    // Some more ids than the next one, for a server that skips a few.
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
    expect(ttl <= 10, "a ttl of ten seconds at most for a user that does not exist", ttl)?;
    // All of them are used up, so that no other case meets an absence that was left behind.
    let mut made = Vec::new();
    while made.last().copied().unwrap_or(last) < last + 5 {
        let grace = format!("Grace {last} {}", made.len());
        made.push(client.sign_up(&grace).await?);
        let counts = made.len() <= 5 && made.is_sorted();
        expect(counts, format!("ids that are counted up from {last}"), format!("{made:?}"))?;
    }
    let mut seen = false;
    for (n, id) in made.into_iter().enumerate().filter(|(_, id)| next.contains(id)) {
        let shown = name(client.read(id).await?).await?;
        equal("the name of a user who was made after a 404", shown, format!("Grace {last} {n}"))?;
        seen = true;
    }
    Ok(seen)
}

/// The second largest possible id.
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
    // No mail server in use tells addresses apart by case.
    let shouted = client.email("Taken").to_uppercase();
    problem(client.create(&json!({ "name": "A", "email": shouted })).await?, 409).await?;
    problem(client.change(second, &client.user("Taken")).await?, 409).await?;
    let seen = name(client.read(second).await?).await?;
    equal("the name after a change that was refused", seen, "Hopper")?;
    let own = client.change(first, &json!({ "name": "A", "email": client.email("Taken") })).await?;
    status(&own, 200).context("the user's own address is no conflict")
}

async fn two_spellings_of_a_mailbox_are_one_address(target: &Target) -> Outcome {
    let client = Client::of(target);
    let tag = client.email("jörg").trim_start_matches("jörg").to_owned();
    let local = tag.trim_end_matches("@example.org").to_owned();
    for (one, other) in [
        (format!("jörg{tag}"), format!("JÖRG{tag}")),
        (format!("rené{tag}"), format!("rene\u{301}{tag}")),
        (format!("mail{local}@bücher.example"), format!("mail{local}@xn--bcher-kva.example")),
    ] {
        let created = client.create(&json!({ "name": "One", "email": one })).await?;
        status(&created, 201).with_context(|| format!("for {one}"))?;
        let taken = client.create(&json!({ "name": "Other", "email": other })).await?;
        problem(taken, 409).await.with_context(|| format!("for {other} beside {one}"))?;
    }
    Ok(())
}

async fn a_change_says_which_version_it_is_for(target: &Target) -> Outcome {
    let client = Client::of(target);
    let created = client.create(&client.user("Versions")).await?;
    let first = header(&created, "etag").to_owned();
    let id = integer(&json_of(created, 201).await?, "id")?;
    let read = client.hit(id).await?;
    equal("the ETag of a hit", header(&read, "etag").to_owned(), first.clone())?;
    let new = json!({ "name": "Second", "email": client.email("Versions") });
    problem(client.change_if(id, &new, None).await?, 428).await?;
    let changed = client.change_if(id, &new, Some(&first)).await?;
    let second = header(&changed, "etag").to_owned();
    status(&changed, 200)?;
    expect(second != first, "another ETag after a change", &second)?;
    let read = client.hit(id).await?;
    equal("the ETag of a hit", header(&read, "etag").to_owned(), second.clone())?;
    let late = json!({ "name": "Late", "email": client.email("Versions") });
    for stale in [first.clone(), "\"none-of-yours\"".to_owned(), format!("W/{second}")] {
        problem(client.change_if(id, &late, Some(&stale)).await?, 412).await?;
    }
    let seen = name(client.read(id).await?).await?;
    equal("the name after changes that were refused", seen, "Second")?;
    let either = format!("{first}, {second}");
    status(&client.change_if(id, &late, Some(&either)).await?, 200)?;
    status(&client.change_if(id, &late, Some("*")).await?, 200)?;
    problem(client.change_if(NOBODY, &late, Some("\"1\"")).await?, 404).await.map(drop)
}

async fn of_twenty_changes_of_one_version_one_is_made(target: &Target) -> Outcome {
    let client = Client::of(target);
    let created = client.create(&client.user("Contended")).await?;
    let etag = header(&created, "etag").to_owned();
    let id = integer(&json_of(created, 201).await?, "id")?;
    let email = client.email("Contended");
    let changes = (0..20).map(|n| {
        let new = json!({ "name": format!("Change {n}"), "email": email });
        target.request(Method::PUT, &format!("users/{id}")).header("if-match", &etag).json(&new)
    });
    let answers = target.send_together(changes.collect()).await?;
    one_wins(&answers, 200, 412)
}

async fn many_users_are_read_at_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (one, two) = (client.sign_up("One").await?, client.sign_up("Two").await?);
    client.hit(one).await?;
    let ids = [two, NOBODY, one, two];
    let all_hit = eventually("Cache-Status has `hit` when all of them are cached", async || {
        let many = client.read_many(&ids).await?;
        let hit = is_hit(&many);
        let many = json_of(many, 200).await?;
        let names: Vec<_> = list(&many, "users")?.iter().map(|user| user["name"].clone()).collect();
        equal("the names of `users`, in the order asked for", names, vec!["Two", "One"])?;
        equal("the ids in `missing`", many["missing"].clone(), vec![NOBODY])?;
        Ok(hit.then_some(()))
    });
    all_hit.await?;
    // Users that were read together are cached one by one, and forgotten one by one.
    let new = json!({ "name": "Second", "email": client.email("Two") });
    status(&client.change(two, &new).await?, 200)?;
    let many = json_of(client.read_many(&ids).await?, 200).await?;
    equal("the name after the PUT was answered", many["users"][0]["name"].clone(), "Second")
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await?;
    let id = Client::of(target).sign_up("Head").await?;
    status(&target.ask(Method::HEAD, &format!("users/{id}")).await?, 200)
}

/// A field that is a time. Its text cannot be compared: `12:00:00Z` sorts after `12:00:00.5Z`.
fn instant(user: &Value, field: &str) -> anyhow::Result<OffsetDateTime> {
    let text = text(user, field)?;
    let instant = OffsetDateTime::parse(text, &Rfc3339).ok();
    instant.with_context(|| format!("expected a time in RFC 3339 in `{field}`, got {text:?}"))
}
