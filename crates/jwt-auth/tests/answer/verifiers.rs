//! Who verifies tokens when the issuer, its keys or its database are away?

use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use conform::http::{header, problem};
use futures_util::future::{join_all, try_join_all};
use jwt_auth::{
    cases::client::{PASSWORD, credentials, part, tokens, unauthorized},
    experiments::{
        fixture::{self, CHEAP, Fixture, verifier},
        hostile::Publisher,
    },
};
use lab::{
    child,
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
    keys::Keys,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::start;

lab::tests![
    another_service_verifies_with_the_key_set_alone,
    without_a_key_set_a_verifier_says_so_and_recovers,
    invented_key_ids_do_not_make_a_verifier_fetch_again_and_again,
    while_the_database_is_away_tokens_are_verified_and_nobody_logs_in,
    a_key_set_without_keys_does_not_take_the_place_of_a_good_one,
    a_key_need_not_say_what_it_is_for,
    a_key_set_of_another_machine_is_not_fetched_over_plain_http,
    a_withdrawn_key_is_refused_at_once_and_another_one_signs,
    without_a_deny_list_a_withdrawn_key_is_refused_with_the_next_key_set,
];

async fn another_service_verifies_with_the_key_set_alone() -> Outcome {
    let (_fixture, issuer, client) = start(&[]).await?;
    let pair = client.join("ann@example.com").await?;
    let (_other, other) = fixture::start(verifier(issuer.url())).await?;
    let seen = other.me(&pair.access_token).await?;
    ensure!(seen.status() == 200, "{}", seen.text().await?);
    ensure!(
        seen.json::<Value>().await? == client.me(&pair.access_token).await?.json::<Value>().await?
    );
    unauthorized(other.me(&pair.access_token[..pair.access_token.len() - 1]).await?).await?;
    unauthorized(other.me(&pair.refresh_token).await?).await?;
    problem(other.target.get("me").await?, 401).await?;
    for path in ["register", "login", "token/refresh", "logout"] {
        problem(other.post(path, &json!({})).await?, 404).await.context(path)?;
    }
    ensure!(other.target.get("readyz").await?.status() == 200);
    // For another audience the same token is none.
    let stranger = verifier(issuer.url()).args(&["--audience", "https://other.example"]);
    let (_stranger, stranger) = fixture::start(stranger).await?;
    unauthorized(stranger.me(&pair.access_token).await?).await
}

async fn without_a_key_set_a_verifier_says_so_and_recovers() -> Outcome {
    let (_fixture, issuer, client) = start(&[]).await?;
    let token = client.join("ann@example.com").await?.access_token;
    let proxy = Proxy::to(issuer.address()).await?;
    proxy.set(Fault::Cut);
    let verifier = verifier(&format!("http://{}", proxy.address()));
    let (_other, other) = fixture::start(verifier.args(&["--jwks-seconds", "0.2"])).await?;
    let me = async || other.show(Method::GET, "me", &token).await;
    let response = me().await?;
    ensure!(header(&response, "retry-after") == "1");
    problem(response, 503).await?;
    proxy.heal();
    eventually("the keys are fetched", async || Ok((me().await?.status() == 200).then_some(())))
        .await?;
    // The keys that it has are good enough for a while.
    proxy.set(Fault::Cut);
    ensure!(me().await?.status() == 200);
    Ok(())
}

async fn invented_key_ids_do_not_make_a_verifier_fetch_again_and_again() -> Outcome {
    let (_fixture, issuer, client) = start(&[]).await?;
    let token = client.join("ann@example.com").await?.access_token;
    let proxy = Proxy::to(issuer.address()).await?;
    let verifier = verifier(&format!("http://{}", proxy.address()));
    let (_other, other) = fixture::start(verifier).await?;
    ensure!(other.me(&token).await?.status() == 200);
    let rest = token.split_once('.').context("no token")?.1;
    let forgeries = (0..100).map(|n| {
        let head = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": format!("invented-{n}") });
        let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(head.to_string()));
        let other = &other;
        async move { other.me(&token).await }
    });
    for response in join_all(forgeries).await {
        unauthorized(response?).await?;
    }
    // One at the start; and one for all hundred, or two if the test took longer than the five seconds between.
    let fetches = proxy.messages();
    ensure!((1..=3).contains(&fetches), "{fetches} fetches");
    Ok(())
}

async fn while_the_database_is_away_tokens_are_verified_and_nobody_logs_in() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let proxied = proxy.url(fixture.database.url())?;
    let service = fixture.serve().args(&CHEAP).env("DATABASE_URL", proxied);
    let (_child, client) = fixture::start(service).await?;
    let pair = client.join("ann@example.com").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        ensure!(client.me(&pair.access_token).await?.status() == 200, "{fault:?}");
        ensure!(client.key_set().await?.status() == 200);
        let refresh = json!({ "refresh_token": pair.refresh_token });
        let (login, register) =
            (credentials("ann@example.com", PASSWORD), credentials("bob@example.com", PASSWORD));
        let calls = [("login", &login), ("register", &register), ("token/refresh", &refresh)];
        let answers =
            try_join_all(calls.map(|(path, body)| client.target.post(path, body))).await?;
        for ((path, _), response) in calls.into_iter().zip(answers) {
            ensure!(header(&response, "retry-after") == "1", "{path} {fault:?}");
            problem(response, 503).await.with_context(|| format!("{path} {fault:?}"))?;
        }
        problem(client.target.get("readyz").await?, 503).await?;
        ensure!(client.target.get("healthz").await?.status() == 200);
        proxy.heal();
        client.log_in("ann@example.com").await?;
    }
    Ok(())
}

async fn a_key_set_without_keys_does_not_take_the_place_of_a_good_one() -> Outcome {
    let (_fixture, _issuer, client) = start(&[]).await?;
    let token = client.join("ann@example.com").await?.access_token;
    let publisher = Publisher::of(client.key_set().await?.text().await?).await?;
    let verifier = verifier(&format!("http://{}", publisher.here.host));
    let (_other, other) = fixture::start(verifier.args(&["--jwks-seconds", "0.1"])).await?;
    ensure!(other.me(&token).await?.status() == 200);
    for bad in [json!({ "keys": [] }), json!({ "keys": [7] }), json!({}), json!("down")] {
        publisher.publish(bad.to_string()).await?;
        ensure!(other.me(&token).await?.status() == 200, "after {bad}");
    }
    Ok(())
}

async fn a_key_need_not_say_what_it_is_for() -> Outcome {
    let (_fixture, _issuer, client) = start(&[]).await?;
    let token = client.join("ann@example.com").await?.access_token;
    let mut key_set: Value = client.key_set().await?.json().await?;
    for member in ["use", "alg"] {
        key_set["keys"][0].as_object_mut().context("a key")?.remove(member);
    }
    let publisher = Publisher::of(key_set.to_string()).await?;
    let verifier = verifier(&format!("http://{}", publisher.here.host));
    let (_other, other) = fixture::start(verifier).await?;
    ensure!(other.me(&token).await?.status() == 200);
    Ok(())
}

async fn a_key_set_of_another_machine_is_not_fetched_over_plain_http() -> Outcome {
    let Err(refused) = verifier("http://auth.example").start().await else {
        bail!("it started");
    };
    let refused = format!("{refused:#}");
    ensure!(refused.contains("https"), "{refused}");
    Ok(())
}

async fn a_withdrawn_key_is_refused_at_once_and_another_one_signs() -> Outcome {
    let keys = Keys::fresh("jwt-auth").await?;
    let deny = ["--deny-list", "--redis-prefix", keys.prefix()];
    let (fixture, issuer, client) = start(&deny).await?;
    let pair = client.join("ann@example.com").await?;
    let (_other, other) = fixture::start(verifier(issuer.url()).args(&deny)).await?;
    ensure!(other.me(&pair.access_token).await?.status() == 200);
    let kid = withdraw_its_key(&pair.access_token, &fixture, &deny).await?;
    for client in [&client, &other] {
        unauthorized(client.me(&pair.access_token).await?).await?;
    }
    // No verifier believes the key when this is forgotten: its key set may be an hour old, and the issuer's was then too.
    let mut redis = keys.connection().await?;
    let denied = format!("{}denied:{kid}", keys.prefix());
    let left: i64 = redis::cmd("TTL").arg(denied).query_async(&mut redis).await?;
    ensure!(left > 2 * 3_600, "denied for {left} s");
    // Nobody has to log in again: the refresh token gives a token of another key, which is published by then.
    let next = tokens(client.refresh(&pair.refresh_token).await?).await?;
    ensure!(part(&next.access_token, 0)?["kid"] != kid);
    ensure!(client.me(&next.access_token).await?.status() == 200);
    // One that has just asked for the key set asks again after some seconds.
    eventually("the verifier knows the new key", async || {
        Ok((other.me(&next.access_token).await?.status() == 200).then_some(()))
    })
    .await
}

async fn without_a_deny_list_a_withdrawn_key_is_refused_with_the_next_key_set() -> Outcome {
    let age = ["--jwks-seconds", "1"];
    let (fixture, issuer, client) = start(&age).await?;
    let token = client.join("ann@example.com").await?.access_token;
    let (_other, other) = fixture::start(verifier(issuer.url()).args(&age)).await?;
    ensure!(other.me(&token).await?.status() == 200);
    withdraw_its_key(&token, &fixture, &age).await?;
    for client in [&client, &other] {
        eventually("the key is gone", async || {
            Ok((client.me(&token).await?.status() == 401).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Withdraws the key that signed this token, as an operator does; its name.
async fn withdraw_its_key(
    token: &str,
    fixture: &Fixture,
    options: &[&str],
) -> anyhow::Result<String> {
    let header = part(token, 0)?;
    let kid = header["kid"].as_str().context("kid")?;
    // Any port: the usual one may be in use, by the very service whose key this is.
    let words = ["jwt-auth", "serve", "--port", "0", "--withdraw-key", kid];
    let mut command = child::command(child::this_program()?);
    let command = command.args(words).args(options).env("DATABASE_URL", fixture.database.url());
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // A child of ours ends with its standard input.
    let _stdin = process.stdin.take();
    let output = process.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("withdrawn"), "{output:?}");
    Ok(kid.to_owned())
}
