//! How is guessing made slow, and for whom?

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail, ensure};
use conform::http::problem;
use futures_util::future::try_join_all;
use jwt_auth::{
    cases::client::{Client, PASSWORD, credentials, tokens},
    experiments::fixture::{self, Fixture},
};
use lab::harness::{Outcome, eventually};
use reqwest::{Method, Response};
use tokio::task::JoinSet;

use crate::start;

lab::tests![
    guesses_of_one_client_are_slowed_down_and_another_client_is_not,
    an_attacker_elsewhere_does_not_keep_the_owner_out,
    a_login_that_is_turned_away_is_not_counted_as_failed,
    a_correct_login_does_not_feed_the_clients_block,
    behind_a_trusted_proxy_each_client_has_a_count_of_its_own,
    registrations_of_one_client_are_slowed_down,
    a_login_that_nobody_could_answer_is_not_counted_as_failed,
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
    let dear = ["--argon2-memory", "19456", "--argon2-passes", "60"];
    let limit = ["--failures-per-client", "1000000"];
    let (_child, client) = fixture::start(fixture.serve().args(&dear).args(&limit)).await?;
    let cores = std::thread::available_parallelism()?.get();
    // Each for an address of its own, which nobody has.
    let statuses = try_join_all((0..20 * cores).map(|n| {
        let guess = credentials(&format!("{n}@example.com"), WRONG);
        let target = &client.target;
        async move { anyhow::Ok(target.post("login", &guess).await?.status().as_u16()) }
    }))
    .await?;
    let turned_away = statuses.iter().filter(|&&status| status == 503).count();
    ensure!(turned_away > 4 * cores, "few were turned away: {statuses:?}");
    // On a slow machine some are being hashed when their time is over. Those count: their password is compared.
    let most = statuses.len() - turned_away + 2 * cores;
    let pool = fixture.database.pool().await?;
    eventually("those that were turned away are not counted", async || {
        // A failure is remembered for ten seconds, and the client has all of them.
        let ahead =
            "select max(extract(epoch from forgotten_at - now()))::float8 from failed_logins";
        let ahead: f64 = sqlx::query_scalar(ahead).fetch_one(&pool).await?;
        Ok((ahead <= most as f64 * 10.0).then_some(()))
    })
    .await?;
    pool.close().await;
    Ok(())
}

/// So many guesses that the client has to wait. Each is for an account that nobody has.
async fn guess_until_blocked(client: &Client) -> Outcome {
    for n in 0..100 {
        if client.try_login(&format!("{n}@example.com"), WRONG).await?.status() == 429 {
            return Ok(());
        }
    }
    bail!("a hundred guesses, and no wait")
}

async fn a_correct_login_does_not_feed_the_clients_block() -> Outcome {
    let (_fixture, _child, client) = start(&["--failures-per-client", "5"]).await?;
    client.register("ann@example.com").await?;
    guess_until_blocked(&client).await?;
    eventually("the wait is over", async || {
        let response = client.try_login("ann@example.com", PASSWORD).await?;
        Ok((response.status() == 200).then_some(()))
    })
    .await?;
    for n in 0..5 {
        let response = client.try_login("ann@example.com", PASSWORD).await?;
        ensure!(
            response.status() == 200,
            "{} for the right password, {n} times later",
            response.status()
        );
    }
    // What it did not do is wipe the slate: guesses are as slow as before.
    guess_until_blocked(&client).await
}

async fn behind_a_trusted_proxy_each_client_has_a_count_of_its_own() -> Outcome {
    let options = ["--failures-per-client", "3", "--trusted-proxy", "127.0.0.1"];
    let (_fixture, _child, client) = start(&options).await?;
    client.register("ann@example.com").await?;
    let log_in = async |from: &str, password: &str| {
        let request = client.target.request(Method::POST, "login").header("x-forwarded-for", from);
        let request = request.json(&credentials("ann@example.com", password));
        anyhow::Ok(client.target.send(request).await?.status().as_u16())
    };
    let mut statuses = Vec::new();
    for n in 0..4 {
        // What the client writes into the header itself makes it nobody else.
        statuses.push(log_in(&format!("192.0.2.{n}, 203.0.113.9"), WRONG).await?);
    }
    ensure!(statuses == [401, 401, 401, 429], "{statuses:?}");
    ensure!(log_in("203.0.113.10", PASSWORD).await? == 200, "another client");
    Ok(())
}

async fn registrations_of_one_client_are_slowed_down() -> Outcome {
    let (_fixture, _child, client) = start(&["--failures-per-client", "5"]).await?;
    for n in 0..5 {
        client.register(&format!("{n}@example.com")).await?;
    }
    let response = client.post("register", &credentials("6@example.com", PASSWORD)).await?;
    problem(response, 429).await?;
    // Logging in is another count.
    client.log_in("0@example.com").await?;
    Ok(())
}

/// Its client waits in vain, or hangs up: in either case no password was compared.
async fn a_login_that_nobody_could_answer_is_not_counted_as_failed() -> Outcome {
    let (fixture, _child, client) = start(&["--failures-per-account", "100"]).await?;
    client.register("ann@example.com").await?;
    let pool = fixture.database.pool().await?;
    // The registration is counted too.
    sqlx::query("delete from failed_logins").execute(&pool).await?;
    let mut lock = pool.begin().await?;
    sqlx::query("lock table users in access exclusive mode").execute(&mut *lock).await?;
    // In how many seconds the last failure is forgotten: each takes ten.
    let ahead = async || {
        let ahead = r#"
            select coalesce(max(extract(epoch from forgotten_at - clock_timestamp())), 0)::float8
            from failed_logins
        "#;
        anyhow::Ok(sqlx::query_scalar::<_, f64>(ahead).fetch_one(&pool).await?)
    };
    let account = credentials("ann@example.com", PASSWORD);
    // Fewer than the service has connections, so that each waits for the lock and for nothing else.
    let mut impatient = JoinSet::new();
    for _ in 0..6 {
        let login = client.target.request(Method::POST, "login").json(&account);
        impatient.spawn(login.send());
    }
    eventually("all six are counted", async || Ok((ahead().await? > 50.0).then_some(()))).await?;
    impatient.shutdown().await;
    // This takes two seconds, so the service has noticed by then that the others have gone.
    problem(client.target.post("login", &account).await?, 503).await?;
    lock.rollback().await?;
    // Without the service's help it would take a minute.
    eventually("none is counted", async || Ok((ahead().await? <= 0.0).then_some(()))).await?;
    pool.close().await;
    tokens(client.try_login("ann@example.com", PASSWORD).await?).await?;
    Ok(())
}
