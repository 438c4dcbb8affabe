//! The table of calls of the service that logs people in.

mod accounts;
mod bad_input;
pub mod client;
mod sessions;

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Method, header::HeaderValue};
use serde_json::Value;

use self::client::{Client, PASSWORD, credentials, part, tokens, unauthorized};
use conform::{
    case::{Outcome, Suite},
    cases,
    http::{header, lives_and_is_ready, problem},
    target::Target,
};

cases! {
    Plain a_user_registers_and_logs_in_and_is_known_by_the_token: "POST /register: 201, Location and the user; POST /login: 200 and a pair of tokens; GET /me: the user", "The way in. What is about one person, no cache may keep.";
    Plain an_access_token_says_what_rfc_9068_asks_for: "A JWT signed with EdDSA, of the type at+jwt, with iss, aud, sub, client_id, exp, nbf, iat, jti and sid", "Services verify it on their own: what it does not say they do not know.";
    Plain me_needs_one_bearer_token_and_says_so: "401 with the challenge of RFC 6750, without `error` if there was no token; 400 for two", "Of two tokens one layer might read the first and another the last. A client has to know whether to log in or to refresh.";
    Plain a_token_that_was_changed_anywhere_is_refused: "401 for a token in which any letter was changed", "That is what the signature is for, and a last letter has bits that some decoders ignore.";
    Plain the_key_set_is_published_without_secrets_and_may_be_cached: "GET /.well-known/jwks.json: the public keys, application/jwk-set+json, with a max-age", "Other services verify by it. One `d` too many and everybody can sign.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "The balancer asks.";
}

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The server has to be told two things. It counts failed logins by account and by client, and here all of them \
    come from one client: that limit has to be out of the way (ours: `--failures-per-client 1000000`), while the \
    account's is 5. And it has no deny-list. Passwords may be cheap to hash (ours: `--argon2-memory 64 \
    --argon2-passes 1`). A refresh token may be used again within a grace of some seconds.";

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        needs: NEEDS,
        cases: [accounts::cases(), cases(), sessions::cases(), bad_input::cases()].concat(),
    }
}

async fn a_user_registers_and_logs_in_and_is_known_by_the_token(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aurali");
    let (created, unsure) =
        target.post_patiently("register", &credentials(&email, PASSWORD)).await?;
    if !unsure {
        ensure!(created.status() == 201 && header(&created, "location") == "/me");
        let user: Value = created.json().await?;
        ensure!(user["email"] == email && user["id"].is_string(), "{user}");
        ensure!(user.as_object().context("no object")?.len() == 2, "it says too much: {user}");
    }
    let response = client.try_login(&email, PASSWORD).await?;
    ensure!(header(&response, "cache-control") == "no-store", "a cache may keep the tokens");
    let tokens = tokens(response).await?;
    ensure!(tokens.token_type == "Bearer" && tokens.expires_in > 0, "{tokens:?}");
    ensure!(
        URL_SAFE_NO_PAD.decode(&tokens.refresh_token)?.len() >= 32,
        "a refresh token has fewer than 256 bits"
    );
    let me = client.me(&tokens.access_token).await?;
    ensure!(me.status() == 200 && header(&me, "cache-control") == "no-store");
    let me: Value = me.json().await?;
    ensure!(me["email"] == email && me["id"] == part(&tokens.access_token, 1)?["sub"], "{me}");
    Ok(())
}

async fn an_access_token_says_what_rfc_9068_asks_for(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aatswr9af");
    client.register(&email).await?;
    let (one, two) = (client.log_in(&email).await?, client.log_in(&email).await?);
    let (head, claims) = (part(&one.access_token, 0)?, part(&one.access_token, 1)?);
    ensure!(head["alg"] == "EdDSA" && head["typ"] == "at+jwt" && head["kid"].is_string(), "{head}");
    let user: Value = client.me(&one.access_token).await?.json().await?;
    ensure!(claims["sub"] == user["id"] && claims["email"] == email, "{claims}");
    for claim in ["iss", "aud", "client_id", "jti", "sid"] {
        ensure!(claims[claim].as_str().is_some_and(|text| !text.is_empty()), "{claim}: {claims}");
    }
    let time = |claim: &str| claims[claim].as_u64().with_context(|| format!("{claim}: {claims}"));
    ensure!(time("exp")? == time("iat")? + one.expires_in, "{claims}");
    ensure!(time("nbf")? == time("iat")?, "{claims}");
    let other = part(&two.access_token, 1)?;
    ensure!(claims["jti"] != other["jti"] && claims["sid"] != other["sid"], "{claims} {other}");
    Ok(())
}

async fn me_needs_one_bearer_token_and_says_so(target: &Target) -> Outcome {
    let client = Client::of(target);
    let good = format!("Bearer {}", client.join(&client.email("mnobtass")).await?.access_token);
    let me = async |values: &[&[u8]]| {
        let mut request = target.request(Method::GET, "me");
        for value in values {
            request = request.header("authorization", HeaderValue::from_bytes(value)?);
        }
        target.send(request).await
    };
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = good.replacen("Bearer", scheme, 1);
        ensure!(me(&[value.as_bytes()]).await?.status() == 200, "{scheme}");
    }
    let good = good.as_bytes();
    let none = r"Bearer";
    let bad = r#"Bearer error="invalid_token""#;
    let two = r#"Bearer error="invalid_request""#;
    for (values, status, challenge) in [
        (&[][..], 401, none),
        (&[&b"Basic YW5uOnNlY3JldA=="[..]][..], 401, none),
        (&[&good[7..]], 401, none),
        (&[b"Bearer"], 401, bad),
        (&[b"Bearer "], 401, bad),
        (&[b"Bearer a.b.c"], 401, bad),
        (&[b"Bearer \xff\xfe"], 401, bad),
        (&[&[good, b" x"].concat()], 401, bad),
        (&[good, good], 400, two),
        (&[b"Basic YW5uOnNlY3JldA==", good], 400, two),
    ] {
        let words =
            values.first().map(|value| String::from_utf8_lossy(&value[..value.len().min(40)]));
        let response = me(values).await?;
        let seen = header(&response, "www-authenticate").to_owned();
        problem(response, status).await.with_context(|| format!("{words:?}"))?;
        ensure!(seen == challenge, "{words:?}: the challenge is {seen:?}, not {challenge:?}");
    }
    // A server may refuse so long a header by itself.
    let huge = ["Bearer ".as_bytes(), &"a".repeat(100_000).into_bytes()].concat();
    let response = target
        .request(Method::GET, "me")
        .header("connection", "close")
        .header("authorization", HeaderValue::from_bytes(&huge)?);
    if let Ok(response) = response.send().await {
        let status = response.status().as_u16();
        ensure!(matches!(status, 400 | 401 | 431), "a token of 100,000 letters: {status}");
    }
    // Not in the address, where logs and referrers would have it.
    let query = format!("me?access_token={}", std::str::from_utf8(&good[7..])?);
    problem(target.get(&query).await?, 401).await?;
    ensure!(me(&[good]).await?.status() == 200, "the next one works");
    Ok(())
}

async fn a_token_that_was_changed_anywhere_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let token = client.join(&client.email("attwcair")).await?.access_token;
    let letters = token.len();
    for at in (0..letters).step_by(7).chain([letters - 1]) {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed)?;
        let seen = unauthorized(client.me(&changed).await?).await;
        seen.with_context(|| format!("letter {at} of {letters} was changed"))?;
    }
    ensure!(client.me(&token).await?.status() == 200);
    Ok(())
}

async fn the_key_set_is_published_without_secrets_and_may_be_cached(target: &Target) -> Outcome {
    let client = Client::of(target);
    let pair = client.join(&client.email("tksipwsambc")).await?;
    let response = client.key_set().await?;
    ensure!(response.status() == 200);
    ensure!(header(&response, "content-type") == "application/jwk-set+json");
    let caching = header(&response, "cache-control");
    ensure!(caching.starts_with("public, max-age="), "Cache-Control: {caching:?}");
    let set: Value = response.json().await?;
    let keys = set["keys"].as_array().with_context(|| set.to_string())?;
    for key in keys {
        ensure!(key.get("d").is_none(), "the private key is published: {set}");
    }
    let kid = part(&pair.access_token, 0)?["kid"].clone();
    let key = keys.iter().find(|key| key["kid"] == kid);
    let key = key.with_context(|| format!("the token's key {kid} is not in {set}"))?;
    for (member, expected) in [("kty", "OKP"), ("crv", "Ed25519"), ("use", "sig"), ("alg", "EdDSA")]
    {
        ensure!(key[member] == expected, "{member}: {set}");
    }
    ensure!(URL_SAFE_NO_PAD.decode(key["x"].as_str().context("x")?)?.len() == 32, "x: {set}");
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await?;
    Ok(())
}
