//! Who verifies tokens when the issuer, its keys or its database are away?

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use conform::http::{header, problem};
use futures_util::future::{join_all, try_join_all};
use jwt_auth::{
    cases::client::{PASSWORD, credentials, unauthorized},
    experiments::fixture::{self, CHEAP, Fixture, verifier},
};
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::start;

lab::tests![
    another_service_verifies_with_the_key_set_alone,
    without_a_key_set_a_verifier_says_so_and_recovers,
    invented_key_ids_do_not_make_a_verifier_fetch_again_and_again,
    while_the_database_is_away_tokens_are_verified_and_nobody_logs_in,
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
        let calls = [
            ("login", &login),
            ("register", &register),
            ("token/refresh", &refresh),
            ("logout", &refresh),
        ];
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
