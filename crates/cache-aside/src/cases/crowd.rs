//! What do many clients at once see, and what is left after a kill?

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context;
use futures_util::future::{join_all, try_join_all};
use reqwest::Response;
use serde_json::json;

use super::client::{Client, cache_status, name};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, integer, json_of, status_in},
    http::one_wins,
    killing::Killing,
    target::{Target, pause},
};

cases! {
    Load an_email_address_wanted_by_twenty_at_once_goes_to_one: "Of twenty who want one address at once, one gets 201 and the others 409", "A program that looks first and inserts afterwards lets two of them find it free.";
    Load a_crowd_at_a_cold_key_fills_it_once: "Of fifty who read an uncached user at once, all get the user, and at most one has `stored` in Cache-Status", "A hot key that expires must not become fifty queries and fifty fills.";
    Load no_read_is_older_than_a_change_that_was_answered: "Reads beside changes: a read that begins after a change was answered shows it, or a later one", "The race of the textbook: a slow reader fills in what it has read before the change.";
    Restart what_was_answered_is_read_after_a_kill: "SIGKILL between changes: afterwards each read shows the last change that was answered, or a later one", "The process dies between its commit and its delete, and the old value is still in the cache.";
}

async fn an_email_address_wanted_by_twenty_at_once_goes_to_one(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.user("Wanted");
    let answers = target.post_together("users", &vec![user; 20]).await?;
    one_wins(&answers, 201, 409)
}

async fn a_crowd_at_a_cold_key_fills_it_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    // A hit shows that the cache is there.
    let warm = client.sign_up("Warm").await?;
    client.hit(warm).await?;
    let id = client.sign_up("Cold").await?;
    let answers = try_join_all((0..50).map(|_| client.read_patiently(id))).await?;
    let stored = answers.iter().filter(|it| cache_status(it, "stored") == Some("")).count();
    for answer in answers {
        equal("the name that each of fifty readers sees", name(answer).await?, "Cold")?;
    }
    expect(stored <= 1, "`stored` in Cache-Status of one reader of fifty at most", stored)
}

/// `change 7` is 7.
async fn number(response: Response) -> anyhow::Result<u64> {
    let name = name(response).await?;
    let number = name.strip_prefix("change ").and_then(|number| number.parse().ok());
    number.with_context(|| {
        format!("expected a name that was put, such as \"change 7\", got {name:?}")
    })
}

/// Changes a user, and returns whether that was answered with 200, and not refused for now.
async fn change(client: &Client, id: i64, number: u64, email: &str) -> anyhow::Result<bool> {
    let user = json!({ "name": format!("change {number}"), "email": email });
    let changed = client.change(id, &user).await?;
    status_in(&changed, &[200, 503])?;
    Ok(changed.status() == 200)
}

async fn no_read_is_older_than_a_change_that_was_answered(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.sign_up("change 0").await?;
    let email = client.email("change 0");
    let (answered, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let writer = async {
        for number in 1..=500 {
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
            let seen = number(client.read_patiently(id).await?).await;
            let seen = seen.inspect_err(|_| done.store(true, Ordering::SeqCst))?;
            if seen < promised {
                done.store(true, Ordering::SeqCst);
            }
            no_older(seen, promised)?;
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
    // All users are made before any client begins. Otherwise the server may be killed while the last is still being
    // made.
    let users = try_join_all((0..8).map(async |worker| {
        let email = client.email(&format!("change 0 of {worker}"));
        let created = client.create(&json!({ "name": "change 0", "email": email })).await?;
        anyhow::Ok((integer(&json_of(created, 201).await?, "id")?, email))
    }))
    .await?;
    let clients = users.into_iter().map(|(id, email)| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = 0;
            for number in 1.. {
                // This read puts the old value into the cache, from where it must be gone after the change.
                if killing.is_over() || client.read(id).await.is_err() {
                    break;
                }
                let user = json!({ "name": format!("change {number}"), "email": email });
                let Ok(changed) = client.change(id, &user).await else { break };
                if changed.status() == 200 {
                    promised = number;
                    killing.promised();
                } else {
                    // It was refused for now: try again a little later.
                    tokio::time::sleep(pause(&changed)).await;
                }
            }
            anyhow::Ok((id, promised))
        }
    });
    let promised = killing.after(24, target, clients).await?;
    for one in promised {
        let (id, promised) = one?;
        no_older(number(client.read_patiently(id).await?).await?, promised)?;
    }
    Ok(())
}

fn no_older(seen: u64, promised: u64) -> Outcome {
    let got = format!("\"change {seen}\"");
    expect(seen >= promised, format!("the name \"change {promised}\", whose PUT was answered"), got)
}
