//! What do many clients at once see, and what is left after a kill?

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures_util::future::{join_all, try_join_all};
use reqwest::Response;
use serde_json::{Value, json};

use super::client::{Client, cache_status, name};
use conform::{
    case::Outcome,
    cases,
    http::header,
    killing::Killing,
    target::{Target, eventually},
};

cases! {
    Load an_email_address_wanted_by_twenty_at_once_goes_to_one: "Of twenty who want one address at once, one gets 201 and the others 409", "Look first and insert after, and two of them both find it free.";
    Load a_crowd_at_a_cold_key_fills_it_once: "Of fifty who read a cold user at once, all get the user and at most one fill is stored", "A hot key that expires must not become fifty queries and fifty fills.";
    Load no_read_is_older_than_a_change_that_was_answered: "Reads beside changes: a read that begins after a change was answered shows it, or a later one", "The race of the textbook: a slow reader fills in what it has read before the change.";
    Restart what_was_answered_is_read_after_a_kill: "SIGKILL between changes: afterwards each read shows the last change that was answered, or a later one", "The process dies between its commit and its delete, and the old value is still in the cache.";
}

async fn an_email_address_wanted_by_twenty_at_once_goes_to_one(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.user("Wanted");
    let answers = try_join_all((0..20).map(|_| target.post_patiently("users", &user))).await?;
    let count = |wanted| answers.iter().filter(|(it, _)| it.status() == wanted).count();
    let (won, lost) = (count(201_u16), count(409_u16));
    let unsure = answers.iter().any(|(_, unsure)| *unsure);
    ensure!(won + lost == 20, "{answers:?}");
    ensure!(won == 1 || won == 0 && unsure, "{won} have the address");
    Ok(())
}

/// A read, again while the answer is 503, as that asks for.
async fn read(client: &Client, id: i64) -> anyhow::Result<Response> {
    eventually("a read is answered", async || {
        let response = client.read(id).await?;
        if response.status() == 503 {
            ensure!(!header(&response, "retry-after").is_empty(), "503 without Retry-After");
            return Ok(None);
        }
        Ok(Some(response))
    })
    .await
}

async fn a_crowd_at_a_cold_key_fills_it_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    // So that the cache is known to be there.
    let warm = client.sign_up("Warm").await?;
    client.hit(warm).await?;
    let id = client.sign_up("Cold").await?;
    let answers = try_join_all((0..50).map(|_| read(&client, id))).await?;
    let stored = answers.iter().filter(|it| cache_status(it, "stored") == Some("")).count();
    for answer in answers {
        ensure!(name(answer).await? == "Cold");
    }
    ensure!(stored <= 1, "{stored} of 50 readers filled the key");
    Ok(())
}

/// `change 7` is 7.
async fn number(response: Response) -> anyhow::Result<u64> {
    let name = name(response).await?;
    Ok(name.strip_prefix("change ").with_context(|| name.clone())?.parse()?)
}

/// Changes a user; whether it was answered, not refused for now.
async fn change(client: &Client, id: i64, number: u64, email: &str) -> anyhow::Result<bool> {
    let user = json!({ "name": format!("change {number}"), "email": email });
    let changed = client.change(id, &user).await?;
    let status = changed.status().as_u16();
    ensure!(matches!(status, 200 | 503), "a change: {status}");
    Ok(status == 200)
}

async fn no_read_is_older_than_a_change_that_was_answered(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("change 0").await?;
    let email = client.email("change 0");
    let (answered, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let writer = async {
        for number in 1..=100 {
            if change(&client, id, number, &email).await? {
                answered.store(number, Ordering::SeqCst);
            }
        }
        done.store(true, Ordering::SeqCst);
        anyhow::Ok(())
    };
    let readers = join_all((0..16).map(|_| async {
        while !done.load(Ordering::SeqCst) {
            let promised = answered.load(Ordering::SeqCst);
            let seen = number(read(&client, id).await?).await;
            let seen = seen.inspect_err(|_| done.store(true, Ordering::SeqCst))?;
            if seen < promised {
                done.store(true, Ordering::SeqCst);
            }
            ensure!(seen >= promised, "change {seen} was read after {promised} was answered");
        }
        anyhow::Ok(())
    }));
    let (written, read) = tokio::join!(writer, readers);
    read.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    written
}

/// Eight clients change a user each, hot in the cache, until the server is gone or has been started again.
async fn what_was_answered_is_read_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    // All of them before anybody begins: the server may be killed while the last is still being made.
    let users = try_join_all((0..8).map(async |worker| {
        let email = client.email(&format!("change 0 of {worker}"));
        let created = client.create(&json!({ "name": "change 0", "email": email })).await?;
        let created: Value = created.json().await?;
        anyhow::Ok((created["id"].as_i64().with_context(|| created.to_string())?, email))
    }))
    .await?;
    let clients = users.into_iter().map(|(id, email)| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = 0;
            for number in 1.. {
                // What it says before the change is what must not be said after it.
                if killing.is_over() || client.read(id).await.is_err() {
                    break;
                }
                let user = json!({ "name": format!("change {number}"), "email": email });
                let Ok(changed) = client.change(id, &user).await else { break };
                if changed.status() == 200 {
                    promised = number;
                    killing.promised();
                } else {
                    // Too many at once: then a little later.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            anyhow::Ok((id, promised))
        }
    });
    let promised = killing.after(24, target, clients).await?;
    for one in promised {
        let (id, promised) = one?;
        let seen = number(read(&client, id).await?).await?;
        ensure!(seen >= promised, "user {id}: change {promised} was answered, {seen} is read");
    }
    Ok(())
}
