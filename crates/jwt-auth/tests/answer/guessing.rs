//! How is guessing made slow, and for whom?

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, ensure};
use conform::http::problem;
use futures_util::future::try_join_all;
use jwt_auth::{
    cases::client::{Client, PASSWORD, credentials, tokens},
    experiments::fixture::{self, Fixture},
};
use lab::harness::Outcome;
use reqwest::Response;

use crate::start;

lab::tests![
    guesses_of_one_client_are_slowed_down_and_another_client_is_not,
    an_attacker_elsewhere_does_not_keep_the_owner_out,
    a_login_that_is_turned_away_is_not_counted_as_failed,
];

const WRONG: &str = "a wrong password";

/// Tries to log in from another machine: on Linux all of 127.0.0.0/8 is loopback.
async fn try_login_elsewhere(client: &Client, password: &str) -> anyhow::Result<Response> {
    let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let http = reqwest::Client::builder().local_address(elsewhere).build()?;
    let login = http.post(format!("{}/login", client.target.url()));
    Ok(login.json(&credentials("ann@example.com", password)).send().await?)
}

async fn guesses_of_one_client_are_slowed_down_and_another_client_is_not() -> Outcome {
    let (_fixture, _child, client) = start(&[]).await?;
    client.register("ann@example.com").await?;
    for n in 0..20 {
        // Two successes in between: they do not wipe the slate.
        if n % 8 == 7 {
            client.log_in("ann@example.com").await?;
        }
        let response = client.try_login(&format!("{n}@example.com"), WRONG).await?;
        problem(response, 401).await.with_context(|| format!("guess {n}"))?;
    }
    problem(client.try_login("another@example.com", WRONG).await?, 429).await?;
    if cfg!(target_os = "linux") {
        tokens(try_login_elsewhere(&client, PASSWORD).await?).await?;
    }
    Ok(())
}

async fn an_attacker_elsewhere_does_not_keep_the_owner_out() -> Outcome {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let (_fixture, _child, client) = start(&[]).await?;
    client.join("ann@example.com").await?;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let response = try_login_elsewhere(&client, WRONG).await?;
        statuses.push(response.status().as_u16());
        // The owner comes from where they have been before, and notices nothing.
        client.log_in("ann@example.com").await?;
    }
    ensure!(statuses[..5] == [401; 5] && statuses[5..] == [429; 3], "{statuses:?}");
    Ok(())
}

/// So many more logins than can be hashed in two seconds that most of them are answered with 503.
async fn a_login_that_is_turned_away_is_not_counted_as_failed() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let dear = ["--argon2-memory", "19456", "--argon2-passes", "12"];
    let limit = ["--failures-per-client", "1000000"];
    let (_child, client) = fixture::start(fixture.serve().args(&dear).args(&limit)).await?;
    let cores = std::thread::available_parallelism()?.get();
    // Each for an address of its own, which nobody has.
    let statuses = try_join_all((0..40 * cores).map(|n| {
        let guess = credentials(&format!("{n}@example.com"), WRONG);
        let target = &client.target;
        async move { anyhow::Ok(target.post("login", &guess).await?.status().as_u16()) }
    }))
    .await?;
    let turned_away = statuses.iter().filter(|&&status| status == 503).count();
    ensure!(turned_away > 0, "nobody was turned away: {statuses:?}");
    let others = i64::try_from(statuses.len() - turned_away)?;
    // Of the accounts and of the one client together: each attempt is charged to both.
    let pool = fixture.database.pool().await?;
    let counted: i64 = sqlx::query_scalar("select sum(failures)::bigint from failed_logins")
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    ensure!(counted == 2 * others, "{counted} counted, {others} were looked at: {statuses:?}");
    Ok(())
}
