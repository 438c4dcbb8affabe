//! The table of calls of the service that logs people in.

mod accounts;
mod bad_input;
pub mod client;
mod sessions;

use anyhow::Context;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Method, Response, header::HeaderValue};
use serde_json::json;

use self::client::{Client, PASSWORD, challenges, credentials, part, tokens, unauthorized};
use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{
        ends_with, equal, expect, integer, json_of, list, same_fields, status, status_in, text,
    },
    http::{header, lives_and_is_ready, media_type_is, problem},
    target::Target,
};

cases! {
    Plain a_user_registers_and_logs_in_and_is_known_by_the_token: "POST /register: 201, Location and the user; POST /login: 200 and a pair of tokens; GET /me: the user", "This is the way in, and no cache may keep what is about one person.";
    Plain an_access_token_says_what_rfc_9068_asks_for: "An access token is a JWT signed with EdDSA, of the type at+jwt, with iss, aud, sub, client_id, exp, iat, jti, sid and email", "Services verify it on their own, and know no more than it says.";
    Plain me_needs_one_bearer_token_and_says_so: "GET /me: 401 with WWW-Authenticate as in RFC 6750, without `error` if there was no token; 400 for two tokens", "Of two tokens one layer might read the first and another the last. A client has to know whether to log in or to refresh.";
    Plain a_token_that_was_changed_anywhere_is_refused: "401 for a token in which any letter was changed", "That is what the signature is for, and a last letter has bits that some decoders ignore.";
    Plain the_key_set_is_published_without_secrets_and_may_be_cached: "GET /.well-known/jwks.json: the public keys, application/jwk-set+json, with a max-age", "Other services verify tokens with it. With a private part `d` in it, everybody could sign.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [accounts::cases(), cases(), sessions::cases(), bad_input::cases()].concat(),
    }
}

async fn a_user_registers_and_logs_in_and_is_known_by_the_token(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aurali");
    let (created, unsure) =
        target.post_patiently("register", &credentials(&email, PASSWORD)).await?;
    if !unsure {
        let location = header(&created, "location").to_owned();
        ends_with("the header `Location`", &location, "/me")?;
        let user = json_of(created, 201).await?;
        text(&user, "id")?;
        equal("the field `email`", user["email"].clone(), &*email)?;
        let keys = || user.as_object().into_iter().flatten().map(|(key, _)| key.to_lowercase());
        let none = !keys().any(|key| key.contains("password") || key.contains("hash"));
        expect(none, "no password and no hash in the answer", &user)?;
    }
    let response = client.try_login(&email, PASSWORD).await?;
    no_store(&response)?;
    let tokens = tokens(response).await?;
    let bearer = tokens.token_type.eq_ignore_ascii_case("bearer");
    expect(bearer, "the token_type Bearer", &tokens.token_type)?;
    expect(tokens.expires_in > 0, "a number of seconds in expires_in", tokens.expires_in)?;
    // 32 random bytes are 43 characters of base64, and more of any other writing.
    let letters = tokens.refresh_token.len();
    expect(
        letters >= 43,
        "a refresh token of at least 32 random bytes",
        format!("{letters} letters"),
    )?;
    let me = client.me(&tokens.access_token).await?;
    status(&me, 200)?;
    no_store(&me)?;
    let me = json_of(me, 200).await?;
    equal("the field `email`", me["email"].clone(), email)?;
    equal("the field `id`", me["id"].clone(), part(&tokens.access_token, 1)?["sub"].clone())
}

async fn an_access_token_says_what_rfc_9068_asks_for(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email("aatswr9af");
    client.register(&email).await?;
    let (one, two) = (client.log_in(&email).await?, client.log_in(&email).await?);
    let (head, claims) = (part(&one.access_token, 0)?, part(&one.access_token, 1)?);
    let expected = json!({ "alg": "EdDSA", "typ": "at+jwt" });
    same_fields(&head, &expected, &["alg", "typ"]).context("in the token's header")?;
    text(&head, "kid").context("in the token's header")?;
    let user = json_of(client.me(&one.access_token).await?, 200).await?;
    let expected = json!({ "sub": user["id"], "email": email });
    same_fields(&claims, &expected, &["sub", "email"]).context("in the token's claims")?;
    for claim in ["iss", "client_id", "jti", "sid"] {
        text(&claims, claim).context("in the token's claims")?;
    }
    // A list of audiences is good too.
    let audience = claims["aud"].is_string() || claims["aud"].is_array();
    expect(audience, "the claim aud", &claims)?;
    let life = integer(&claims, "exp")? - integer(&claims, "iat")?;
    let expires_in = i64::try_from(one.expires_in)?;
    // Between the two readings of the clock a second may end.
    expect((life - expires_in).abs() <= 1, format!("exp to be iat + {expires_in}"), &claims)?;
    let other = part(&two.access_token, 1)?;
    for claim in ["jti", "sid"] {
        expect(claims[claim] != other[claim], format!("another {claim} after each login"), &other)?;
    }
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
        let seen = status(&me(&[value.as_bytes()]).await?, 200);
        seen.with_context(|| format!("for the scheme {scheme}"))?;
    }
    let good = good.as_bytes();
    let (none, bad, two) = (None, Some("invalid_token"), Some("invalid_request"));
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
        let what = || format!("with {} header(s) Authorization, the first {words:?}", values.len());
        problem(response, status).await.with_context(what)?;
        challenges(&seen, challenge).with_context(what)?;
    }
    // A server may refuse so long a header by itself.
    let huge = ["Bearer ".as_bytes(), &"a".repeat(100_000).into_bytes()].concat();
    let response = target
        .request(Method::GET, "me")
        .header("connection", "close")
        .header("authorization", HeaderValue::from_bytes(&huge)?);
    if let Ok(response) = target.send(response).await {
        status_in(&response, &[401, 400, 431]).context("for a token of 100,000 letters")?;
    }
    // Not in the address, where logs and referrers would have it.
    let query = format!("me?access_token={}", std::str::from_utf8(&good[7..])?);
    problem(target.get(&query).await?, 401).await?;
    status(&me(&[good]).await?, 200).context("the good token after all these")
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
    status(&client.me(&token).await?, 200).context("the token as it was given out")
}

async fn the_key_set_is_published_without_secrets_and_may_be_cached(target: &Target) -> Outcome {
    let client = Client::of(target);
    let pair = client.join(&client.email("tksipwsambc")).await?;
    let response = client.key_set().await?;
    status(&response, 200)?;
    media_type_is(&response, "application/jwk-set+json")?;
    let caching = header(&response, "cache-control");
    expect(caching.contains("max-age="), "a max-age in Cache-Control", format!("{caching:?}"))?;
    let set = json_of(response, 200).await?;
    let keys = list(&set, "keys")?;
    for key in keys {
        expect(key.get("d").is_none(), "no private part (d) in the keys", &set)?;
    }
    let kid = part(&pair.access_token, 0)?["kid"].clone();
    let key = keys.iter().find(|key| key["kid"] == kid);
    let key =
        key.with_context(|| format!("expected the token's key {kid} in `keys`, got {set}"))?;
    let expected = json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA" });
    same_fields(key, &expected, &["kty", "crv", "use", "alg"]).context("in the token's key")?;
    let x = URL_SAFE_NO_PAD.decode(text(key, "x")?).unwrap_or_default();
    expect(x.len() == 32, "32 bytes in base64 in `x`", &key["x"])
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}

/// What is about one person, no cache may keep.
pub fn no_store(response: &Response) -> Outcome {
    let caching = header(response, "cache-control");
    let none = caching.split(',').any(|it| it.trim().eq_ignore_ascii_case("no-store"));
    expect(none, "no-store in Cache-Control", format!("{caching:?}"))
}
