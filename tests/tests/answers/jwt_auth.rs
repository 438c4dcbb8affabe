//! Does the authentication service do what its table of calls says? Over HTTP, as its clients would.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::{join_all, try_join_all};
use jwt_auth::MIGRATIONS;
use lab::{
    child::{Child, ChildBuilder},
    database::Database,
    fault::{Fault, Proxy},
    keys::Keys,
};
use reqwest::{Method, RequestBuilder, Response, header::HeaderValue};
use serde_json::{Value, json};

use crate::{
    http::{client, header, invalid, problem, refuses_bad_bodies},
    support::{Outcome, eventually, tests},
};

tests![
    a_user_registers_and_logs_in_and_is_known_by_the_token,
    an_access_token_says_what_rfc_9068_asks_for,
    a_taken_address_is_a_conflict_however_it_is_written,
    an_address_wanted_by_twenty_at_once_becomes_one_account,
    an_address_that_is_none_is_refused,
    a_password_that_is_too_short_too_long_or_common_is_refused,
    a_password_of_a_megabyte_is_refused_unread,
    a_password_is_compared_to_its_last_character_whatever_it_holds,
    a_wrong_password_and_an_unknown_address_get_the_same_answer,
    guesses_at_one_account_are_slowed_down_and_its_owner_gets_in_after_the_wait,
    fifty_guesses_at_once_are_no_more_than_five,
    guesses_of_one_client_are_slowed_down_and_another_client_is_not,
    an_attacker_elsewhere_does_not_keep_the_owner_out,
    me_needs_one_bearer_token_and_says_so,
    a_token_that_was_changed_anywhere_is_refused,
    a_token_is_refused_after_its_life_and_the_leeway,
    a_refresh_gives_a_new_pair,
    two_tabs_that_refresh_at_once_are_not_an_attack,
    a_refresh_token_used_again_after_the_grace_ends_its_whole_family,
    a_refresh_token_of_the_generation_before_the_last_has_no_grace,
    what_is_no_refresh_token_is_refused,
    a_refresh_token_that_is_too_old_is_refused,
    a_logout_ends_one_session_and_its_access_token_lives_on,
    a_logout_everywhere_ends_all_sessions_of_the_user_and_no_other,
    a_logout_needs_a_token,
    with_a_deny_list_a_revoked_sessions_access_tokens_end_at_once,
    while_the_deny_list_is_away_no_token_passes_and_then_they_do_again,
    the_key_set_is_published_without_secrets_and_may_be_cached,
    another_service_verifies_with_the_key_set_alone,
    without_a_key_set_a_verifier_says_so_and_recovers,
    invented_key_ids_do_not_make_a_verifier_fetch_again_and_again,
    while_the_database_is_away_tokens_are_verified_and_nobody_logs_in,
    a_login_hashes_again_when_the_cost_has_changed,
    unless_told_otherwise_a_password_costs_what_owasp_asks_for,
    the_database_holds_no_password_and_no_token,
    a_body_that_is_none_of_ours_is_refused,
    a_wrong_method_is_not_allowed_and_a_wrong_path_is_not_found,
    the_service_says_that_it_lives_and_is_ready_and_stops_when_asked,
];

/// Cheap to hash with: what is tested here is not how long a guess takes.
const CHEAP: [&str; 4] = ["--argon2-memory", "64", "--argon2-passes", "1"];
const PASSWORD: &str = "correct horse battery staple";

/// A service of the test's own, spoken to in its own words.
struct Api {
    child: Child,
    database: Database,
    http: reqwest::Client,
}

/// What a login gives.
#[derive(Clone, Debug, serde::Deserialize)]
struct Tokens {
    access_token: String,
    token_type: String,
    expires_in: u64,
    refresh_token: String,
}

fn serve(database: &Database) -> ChildBuilder {
    Child::serve("jwt-auth").database(database).args(&CHEAP)
}

fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password })
}

impl Api {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let database = Database::fresh("jwt-auth", &MIGRATIONS).await?;
        let child = serve(&database).args(arguments).start().await?;
        Ok(Self { child, database, http: client()? })
    }

    /// The same service as seen from another machine: on Linux all of 127.0.0.0/8 is loopback.
    fn elsewhere() -> anyhow::Result<reqwest::Client> {
        let elsewhere = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        Ok(reqwest::Client::builder().local_address(elsewhere).build()?)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.child.url())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        Ok(self.request(Method::POST, path).json(body).send().await?)
    }

    async fn register(&self, email: &str) -> anyhow::Result<Value> {
        let response = self.post("register", &credentials(email, PASSWORD)).await?;
        ensure!(response.status() == 201, "{}", response.text().await?);
        Ok(response.json().await?)
    }

    async fn try_login(&self, email: &str, password: &str) -> anyhow::Result<Response> {
        self.post("login", &credentials(email, password)).await
    }

    async fn login(&self, email: &str) -> anyhow::Result<Tokens> {
        tokens(self.try_login(email, PASSWORD).await?).await
    }

    /// A user who has just logged in.
    async fn somebody(&self) -> anyhow::Result<Tokens> {
        self.register("ann@example.com").await?;
        self.login("ann@example.com").await
    }

    async fn refresh(&self, token: &str) -> anyhow::Result<Response> {
        self.post("token/refresh", &json!({ "refresh_token": token })).await
    }

    async fn me(&self, token: &str) -> anyhow::Result<Response> {
        Ok(self.request(Method::GET, "me").bearer_auth(token).send().await?)
    }
}

/// The pair in an answer that must be one.
async fn tokens(response: Response) -> anyhow::Result<Tokens> {
    ensure!(response.status() == 200, "{}", response.text().await?);
    Ok(response.json().await?)
}

/// A 401 whose challenge says that the token is no good.
async fn unauthorized(response: Response) -> Outcome {
    let challenge = header(&response, "www-authenticate").to_owned();
    problem(response, 401).await?;
    ensure!(challenge == r#"Bearer error="invalid_token""#, "{challenge}");
    Ok(())
}

/// One part of a token, as JSON.
fn part(token: &str, n: usize) -> anyhow::Result<Value> {
    let part = token.split('.').nth(n).context("no such part")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}

async fn a_user_registers_and_logs_in_and_is_known_by_the_token() -> Outcome {
    let api = Api::start(&[]).await?;
    let created = api.post("register", &credentials("ann@example.com", PASSWORD)).await?;
    ensure!(created.status() == 201 && header(&created, "location") == "/me");
    let user: Value = created.json().await?;
    ensure!(user["email"] == "ann@example.com" && user["id"].is_string(), "{user}");
    ensure!(user.as_object().context("no object")?.len() == 2, "{user}");
    let response = api.try_login("ann@example.com", PASSWORD).await?;
    ensure!(header(&response, "cache-control") == "no-store");
    let tokens = tokens(response).await?;
    ensure!((tokens.token_type.as_str(), tokens.expires_in) == ("Bearer", 900), "{tokens:?}");
    // 256 bits.
    ensure!(URL_SAFE_NO_PAD.decode(&tokens.refresh_token)?.len() == 32);
    let me = api.me(&tokens.access_token).await?;
    ensure!(me.status() == 200 && header(&me, "cache-control") == "no-store");
    ensure!(me.json::<Value>().await? == user);
    Ok(())
}

async fn an_access_token_says_what_rfc_9068_asks_for() -> Outcome {
    let api = Api::start(&[]).await?;
    let user = api.register("ann@example.com").await?;
    let (one, two) = (api.login("ann@example.com").await?, api.login("ann@example.com").await?);
    let (head, claims) = (part(&one.access_token, 0)?, part(&one.access_token, 1)?);
    ensure!(head["alg"] == "EdDSA" && head["typ"] == "at+jwt" && head["kid"].is_string(), "{head}");
    ensure!(claims["sub"] == user["id"] && claims["email"] == user["email"], "{claims}");
    for (claim, expected) in [
        ("iss", "https://auth.example"),
        ("aud", "https://api.example"),
        ("client_id", "first-party"),
    ] {
        ensure!(claims[claim] == expected, "{claims}");
    }
    let time = |claim: &str| claims[claim].as_u64().with_context(|| claims.to_string());
    ensure!(time("exp")? == time("iat")? + 900 && time("nbf")? == time("iat")?, "{claims}");
    let other = part(&two.access_token, 1)?;
    ensure!(claims["jti"] != other["jti"] && claims["sid"] != other["sid"], "{claims} {other}");
    Ok(())
}

async fn a_taken_address_is_a_conflict_however_it_is_written() -> Outcome {
    let api = Api::start(&[]).await?;
    api.register("ann@example.com").await?;
    for email in ["ann@example.com", "Ann@Example.COM"] {
        problem(api.post("register", &credentials(email, PASSWORD)).await?, 409).await?;
    }
    api.login("ANN@example.com").await?;
    Ok(())
}

async fn an_address_wanted_by_twenty_at_once_becomes_one_account() -> Outcome {
    let api = Api::start(&[]).await?;
    let body = credentials("ann@example.com", PASSWORD);
    let register = async || {
        eventually("an answer that is not 'come back'", async || {
            let status = api.post("register", &body).await?.status().as_u16();
            Ok((status != 503).then_some(status))
        })
        .await
    };
    let statuses = try_join_all((0..20).map(|_| register())).await?;
    let count = |status: u16| statuses.iter().filter(|&&seen| seen == status).count();
    // Whoever was told to come back may have been the one, and not know it.
    ensure!(count(201) <= 1 && count(201) + count(409) == 20, "{statuses:?}");
    let pool = api.database.pool().await?;
    let accounts: i64 = sqlx::query_scalar("select count(*) from users").fetch_one(&pool).await?;
    pool.close().await;
    ensure!(accounts == 1, "{accounts} accounts");
    Ok(())
}

async fn an_address_that_is_none_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let long = format!("{}@example.com", "a".repeat(288));
    for email in ["", "ann", "@example.com", "ann@", "a b@example.com", "a\0@b.example", &long] {
        for path in ["register", "login"] {
            let response = api.post(path, &credentials(email, PASSWORD)).await?;
            invalid(response, "email").await.with_context(|| format!("{path} {email:?}"))?;
        }
    }
    Ok(())
}

async fn a_password_that_is_too_short_too_long_or_common_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let (long, longer) = ("x".repeat(129), "🦀".repeat(600));
    for password in
        ["", "7 chars", "password", "Password123", "12345678", "with a \0 NUL", &long, &longer]
    {
        let response = api.post("register", &credentials("ann@example.com", password)).await?;
        invalid(response, "password").await.with_context(|| format!("{password:?}"))?;
    }
    for password in [&long, &longer] {
        invalid(api.try_login("ann@example.com", password).await?, "password").await?;
    }
    // Both mistakes at once.
    let response = api.post("register", &credentials("ann", "short")).await?;
    let problem = problem(response, 422).await?;
    let fields: Vec<_> = problem["errors"].as_array().context("no errors")?.iter().collect();
    ensure!(fields.len() == 2, "{problem}");
    Ok(())
}

async fn a_password_of_a_megabyte_is_refused_unread() -> Outcome {
    let api = Api::start(&[]).await?;
    for path in ["register", "login"] {
        let body = credentials("ann@example.com", &"x".repeat(1_000_000));
        let request = api.request(Method::POST, path).header("connection", "close").json(&body);
        match request.send().await {
            Ok(response) => {
                problem(response, 413).await?;
            }
            // The service may close the connection before all of it has been sent.
            Err(error) => ensure!(error.is_request() || error.is_body(), "{error:?}"),
        }
    }
    api.register("ann@example.com").await?;
    Ok(())
}

async fn a_password_is_compared_to_its_last_character_whatever_it_holds() -> Outcome {
    let api = Api::start(&[]).await?;
    let longest = "🦀".repeat(128);
    for (n, password) in ["🦀🦞🦐🦑🐙🐚🐟🐠", "пароль из двух слов", "  spaces count  ", &longest]
        .into_iter()
        .enumerate()
    {
        let email = format!("{n}@example.com");
        let response = api.post("register", &credentials(&email, password)).await?;
        ensure!(response.status() == 201, "{password}: {}", response.text().await?);
        tokens(api.try_login(&email, password).await?).await?;
        let shorter: String = password.chars().take(password.chars().count() - 1).collect();
        for wrong in [shorter.as_str(), &format!("{shorter}x"), &format!("{password}\0"), ""] {
            let status = api.try_login(&email, wrong).await?.status().as_u16();
            ensure!(matches!(status, 401 | 422 | 429), "{wrong:?}: {status}");
        }
    }
    Ok(())
}

async fn a_wrong_password_and_an_unknown_address_get_the_same_answer() -> Outcome {
    let api = Api::start(&[]).await?;
    api.register("ann@example.com").await?;
    let mut answers = HashSet::new();
    for email in ["ann@example.com", "nobody@example.com"] {
        let response = api.try_login(email, "a wrong password").await?;
        let mut headers: Vec<_> = response
            .headers()
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        answers.insert((headers, problem(response, 401).await?.to_string()));
    }
    ensure!(answers.len() == 1, "{answers:?}");
    Ok(())
}

async fn guesses_at_one_account_are_slowed_down_and_its_owner_gets_in_after_the_wait() -> Outcome {
    let api = Api::start(&[]).await?;
    for (email, known) in [("ann@example.com", true), ("nobody@example.com", false)] {
        if known {
            api.register(email).await?;
        }
        for _ in 0..5 {
            problem(api.try_login(email, "a wrong password").await?, 401).await?;
        }
        // The right password is no exception: it would tell.
        let response = api.try_login(email, PASSWORD).await?;
        let wait: u64 = header(&response, "retry-after").parse().context("Retry-After")?;
        ensure!((1..=2).contains(&wait), "Retry-After: {wait}");
        problem(response, 429).await?;
    }
    let back = eventually("the owner gets in", async || {
        let response = api.try_login("ann@example.com", PASSWORD).await?;
        Ok((response.status() != 429).then_some(response))
    });
    tokens(back.await?).await?;
    Ok(())
}

async fn fifty_guesses_at_once_are_no_more_than_five() -> Outcome {
    let api = Api::start(&["--failures-per-client", "1000"]).await?;
    api.register("ann@example.com").await?;
    let guesses = (0..50).map(|n| {
        let api = &api;
        async move { api.try_login("ann@example.com", &format!("wrong password {n}")).await }
    });
    let begun = Instant::now();
    let answers = try_join_all(guesses).await?;
    // The waits are 1, 2, 4 … seconds: on a slow machine some of them are over before all have been sent.
    let waits =
        (1..=6).take_while(|&n| begun.elapsed() >= Duration::from_secs((1 << n) - 1)).count();
    let count = |status: u16| answers.iter().filter(|answer| answer.status() == status).count();
    let (tried, slowed) = (count(401), count(429));
    ensure!((5..=5 + waits).contains(&tried), "{tried} tried, {slowed} slowed, {waits} waits over");
    Ok(())
}

async fn guesses_of_one_client_are_slowed_down_and_another_client_is_not() -> Outcome {
    let api = Api::start(&[]).await?;
    api.register("ann@example.com").await?;
    for n in 0..20 {
        // Two successes in between: they do not wipe the slate.
        if n % 8 == 7 {
            api.login("ann@example.com").await?;
        }
        let response = api.try_login(&format!("{n}@example.com"), "a wrong password").await?;
        problem(response, 401).await.with_context(|| format!("guess {n}"))?;
    }
    problem(api.try_login("another@example.com", "a wrong password").await?, 429).await?;
    if cfg!(target_os = "linux") {
        let body = credentials("ann@example.com", PASSWORD);
        let elsewhere = Api::elsewhere()?.post(api.url("login")).json(&body);
        tokens(elsewhere.send().await?).await?;
    }
    Ok(())
}

async fn an_attacker_elsewhere_does_not_keep_the_owner_out() -> Outcome {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let api = Api::start(&[]).await?;
    let _ = api.somebody().await?;
    let attacker = Api::elsewhere()?;
    let guess = credentials("ann@example.com", "a wrong password");
    let mut statuses = Vec::new();
    for _ in 0..8 {
        let response = attacker.post(api.url("login")).json(&guess).send().await?;
        statuses.push(response.status().as_u16());
        // The owner comes from where they have been before, and notices nothing.
        api.login("ann@example.com").await?;
    }
    ensure!(statuses[..5] == [401; 5] && statuses[5..] == [429; 3], "{statuses:?}");
    Ok(())
}

async fn me_needs_one_bearer_token_and_says_so() -> Outcome {
    let api = Api::start(&[]).await?;
    let good = format!("Bearer {}", api.somebody().await?.access_token);
    let me = |values: &[&[u8]]| {
        let request = api.request(Method::GET, "me");
        values.iter().try_fold(request, |request, value| {
            anyhow::Ok(request.header("authorization", HeaderValue::from_bytes(value)?))
        })
    };
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = good.replacen("Bearer", scheme, 1);
        ensure!(me(&[value.as_bytes()])?.send().await?.status() == 200, "{scheme}");
    }
    let good = good.as_bytes();
    let none = r"Bearer";
    let bad = r#"Bearer error="invalid_token""#;
    let two = r#"Bearer error="invalid_request""#;
    let huge = ["Bearer ".as_bytes(), &"a".repeat(100_000).into_bytes()].concat();
    for (values, status, challenge) in [
        (&[][..], 401, none),
        (&[&b"Basic YW5uOnNlY3JldA=="[..]][..], 401, none),
        (&[&good[7..]], 401, none),
        (&[b"Bearer"], 401, bad),
        (&[b"Bearer "], 401, bad),
        (&[b"Bearer a.b.c"], 401, bad),
        (&[b"Bearer \xff\xfe"], 401, bad),
        (&[&[good, b" x"].concat()], 401, bad),
        (&[&huge], 401, bad),
        (&[good, good], 400, two),
        (&[b"Basic YW5uOnNlY3JldA==", good], 400, two),
    ] {
        let words =
            values.first().map(|value| String::from_utf8_lossy(&value[..value.len().min(40)]));
        let response = me(values)?.send().await?;
        ensure!(header(&response, "www-authenticate") == challenge, "{words:?}: {response:?}");
        problem(response, status).await.with_context(|| format!("{words:?}"))?;
    }
    // Not in the address, where logs and referrers would have it.
    let query = format!("me?access_token={}", std::str::from_utf8(&good[7..])?);
    problem(api.request(Method::GET, &query).send().await?, 401).await?;
    ensure!(me(&[good])?.send().await?.status() == 200, "the next one works");
    Ok(())
}

async fn a_token_that_was_changed_anywhere_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let token = api.somebody().await?.access_token;
    let letters = token.len();
    for at in (0..letters).step_by(7).chain([letters - 1]) {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed)?;
        unauthorized(api.me(&changed).await?).await.with_context(|| changed)?;
    }
    ensure!(api.me(&token).await?.status() == 200);
    Ok(())
}

async fn a_token_is_refused_after_its_life_and_the_leeway() -> Outcome {
    let api = Api::start(&["--access-seconds", "1", "--leeway-seconds", "1"]).await?;
    let tokens = api.somebody().await?;
    ensure!(tokens.expires_in == 1);
    ensure!(api.me(&tokens.access_token).await?.status() == 200);
    let refused = eventually("the token ends", async || {
        let response = api.me(&tokens.access_token).await?;
        Ok((response.status() != 200).then_some(response))
    });
    unauthorized(refused.await?).await
}

async fn a_refresh_gives_a_new_pair() -> Outcome {
    let api = Api::start(&[]).await?;
    let first = api.somebody().await?;
    let response = api.refresh(&first.refresh_token).await?;
    ensure!(header(&response, "cache-control") == "no-store");
    let second = tokens(response).await?;
    ensure!((second.token_type.as_str(), second.expires_in) == ("Bearer", 900), "{second:?}");
    ensure!(second.refresh_token != first.refresh_token);
    ensure!(second.access_token != first.access_token);
    for token in [&first.access_token, &second.access_token] {
        ensure!(api.me(token).await?.status() == 200, "both live as long as they say");
    }
    let sid = |token: &str| anyhow::Ok(part(token, 1)?["sid"].clone());
    ensure!(sid(&first.access_token)? == sid(&second.access_token)?, "one login, one session");
    tokens(api.refresh(&second.refresh_token).await?).await?;
    Ok(())
}

async fn two_tabs_that_refresh_at_once_are_not_an_attack() -> Outcome {
    let api = Api::start(&[]).await?;
    let first = api.somebody().await?;
    let (one, two) =
        tokio::try_join!(api.refresh(&first.refresh_token), api.refresh(&first.refresh_token))?;
    let (one, two) = (tokens(one).await?, tokens(two).await?);
    ensure!(one.refresh_token != two.refresh_token);
    // Whichever of the two the tabs go on with.
    let (one, two) =
        tokio::try_join!(api.refresh(&one.refresh_token), api.refresh(&two.refresh_token))?;
    let last = tokens(one).await?;
    tokens(two).await?;
    ensure!(api.me(&last.access_token).await?.status() == 200);
    Ok(())
}

async fn a_refresh_token_used_again_after_the_grace_ends_its_whole_family() -> Outcome {
    let api = Api::start(&["--grace-seconds", "0.5"]).await?;
    let first = api.somebody().await?;
    let other = api.login("ann@example.com").await?;
    let second = tokens(api.refresh(&first.refresh_token).await?).await?;
    // Within the grace this gives a pair, and changes nothing.
    let refused = eventually("the grace is over", async || {
        let response = api.refresh(&first.refresh_token).await?;
        Ok((response.status() != 200).then_some(response))
    });
    unauthorized(refused.await?).await?;
    unauthorized(api.refresh(&second.refresh_token).await?).await?;
    // Another login of the same user goes on.
    tokens(api.refresh(&other.refresh_token).await?).await?;
    Ok(())
}

async fn a_refresh_token_of_the_generation_before_the_last_has_no_grace() -> Outcome {
    let api = Api::start(&[]).await?;
    let first = api.somebody().await?;
    let second = tokens(api.refresh(&first.refresh_token).await?).await?;
    let third = tokens(api.refresh(&second.refresh_token).await?).await?;
    unauthorized(api.refresh(&first.refresh_token).await?).await?;
    unauthorized(api.refresh(&third.refresh_token).await?).await
}

async fn what_is_no_refresh_token_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let pair = api.somebody().await?;
    let unknown = URL_SAFE_NO_PAD.encode([7; 32]);
    let padded = format!("{}=", pair.refresh_token);
    let long = "a".repeat(4_000);
    for token in
        ["", "abc", "' or 1=1 --", "\0", &unknown, &padded, &long, &pair.access_token, "🦀"]
    {
        unauthorized(api.refresh(token).await?).await.with_context(|| token.to_owned())?;
    }
    for token in [json!(null), json!(7), json!([pair.refresh_token])] {
        let body = json!({ "refresh_token": token });
        invalid(api.post("token/refresh", &body).await?, "refresh_token").await?;
    }
    tokens(api.refresh(&pair.refresh_token).await?).await?;
    Ok(())
}

async fn a_refresh_token_that_is_too_old_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let pair = api.somebody().await?;
    let pool = api.database.pool().await?;
    sqlx::query("update refresh_tokens set expires_at = now()").execute(&pool).await?;
    pool.close().await;
    unauthorized(api.refresh(&pair.refresh_token).await?).await
}

async fn a_logout_ends_one_session_and_its_access_token_lives_on() -> Outcome {
    let api = Api::start(&[]).await?;
    let (first, second) = (api.somebody().await?, api.login("ann@example.com").await?);
    let other = api.login("ann@example.com").await?;
    // By either token.
    let body = json!({ "refresh_token": first.refresh_token });
    ensure!(api.post("logout", &body).await?.status() == 204);
    let by_access = api.request(Method::POST, "logout").bearer_auth(&second.access_token);
    ensure!(by_access.send().await?.status() == 204);
    for pair in [&first, &second] {
        unauthorized(api.refresh(&pair.refresh_token).await?).await?;
        // The price of asking nobody.
        ensure!(api.me(&pair.access_token).await?.status() == 200);
    }
    ensure!(api.post("logout", &body).await?.status() == 204, "again, and no harm done");
    tokens(api.refresh(&other.refresh_token).await?).await?;
    Ok(())
}

async fn a_logout_everywhere_ends_all_sessions_of_the_user_and_no_other() -> Outcome {
    let api = Api::start(&[]).await?;
    let (first, second) = (api.somebody().await?, api.login("ann@example.com").await?);
    api.register("bob@example.com").await?;
    let bob = api.login("bob@example.com").await?;
    let everywhere =
        api.request(Method::POST, "logout/everywhere").bearer_auth(&first.access_token);
    ensure!(everywhere.send().await?.status() == 204);
    for pair in [&first, &second] {
        unauthorized(api.refresh(&pair.refresh_token).await?).await?;
    }
    let bob = tokens(api.refresh(&bob.refresh_token).await?).await?;
    // A token that has ended can end nothing; one that has not can.
    let third = api.login("ann@example.com").await?;
    let dead = json!({ "refresh_token": first.refresh_token });
    unauthorized(api.post("logout/everywhere", &dead).await?).await?;
    let third = tokens(api.refresh(&third.refresh_token).await?).await?;
    let alive = json!({ "refresh_token": third.refresh_token });
    ensure!(api.post("logout/everywhere", &alive).await?.status() == 204);
    unauthorized(api.refresh(&third.refresh_token).await?).await?;
    tokens(api.refresh(&bob.refresh_token).await?).await?;
    Ok(())
}

async fn a_logout_needs_a_token() -> Outcome {
    let api = Api::start(&[]).await?;
    for path in ["logout", "logout/everywhere"] {
        problem(api.request(Method::POST, path).send().await?, 401).await?;
        problem(api.post(path, &json!({})).await?, 401).await?;
        unauthorized(api.request(Method::POST, path).bearer_auth("x.y.z").send().await?).await?;
        let unknown = json!({ "refresh_token": URL_SAFE_NO_PAD.encode([7; 32]) });
        unauthorized(api.post(path, &unknown).await?).await?;
        for (body, status) in [("{", 400), ("[]", 422), (r#"{"token":"x"}"#, 422)] {
            let request =
                api.request(Method::POST, path).header("content-type", "application/json");
            problem(request.body(body).send().await?, status).await.context(body)?;
        }
        problem(api.request(Method::POST, path).body("refresh_token=x").send().await?, 415).await?;
        let large = "x".repeat(100_000);
        // It is refused unread, and the connection closed.
        let large = api.request(Method::POST, path).header("connection", "close").body(large);
        problem(large.send().await?, 413).await?;
    }
    Ok(())
}

async fn with_a_deny_list_a_revoked_sessions_access_tokens_end_at_once() -> Outcome {
    let keys = Keys::fresh("jwt-auth").await?;
    let deny = ["--deny-list", "--redis-prefix", keys.prefix(), "--grace-seconds", "0.1"];
    let api = Api::start(&deny).await?;
    let first = api.somebody().await?;
    let second = tokens(api.refresh(&first.refresh_token).await?).await?;
    let other = api.login("ann@example.com").await?;
    let body = json!({ "refresh_token": second.refresh_token });
    ensure!(api.post("logout", &body).await?.status() == 204);
    // Every token of the session, not only the last.
    for token in [&first.access_token, &second.access_token] {
        unauthorized(api.me(token).await?).await?;
    }
    ensure!(api.me(&other.access_token).await?.status() == 200);
    // A theft ends them too.
    let next = tokens(api.refresh(&other.refresh_token).await?).await?;
    eventually("the grace is over", async || {
        Ok((api.refresh(&other.refresh_token).await?.status() == 401).then_some(()))
    })
    .await?;
    unauthorized(api.me(&next.access_token).await?).await?;
    // What is kept goes by itself when the tokens would have ended.
    let mut redis = keys.connection().await?;
    let key = format!(
        "{}denied:{}",
        keys.prefix(),
        part(&next.access_token, 1)?["jti"].as_str().context("jti")?
    );
    let left: i64 = redis::cmd("TTL").arg(key).query_async(&mut redis).await?;
    // And not sooner than the last verifier, by a clock that is behind by the leeway, believes it.
    let exp = part(&next.access_token, 1)?["exp"].as_i64().context("exp")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let still_believed = exp + 2 * 30 + 1 - i64::try_from(now)?;
    ensure!((still_believed..=971).contains(&left), "{left} s, believed for {still_believed}");
    Ok(())
}

async fn while_the_deny_list_is_away_no_token_passes_and_then_they_do_again() -> Outcome {
    let keys = Keys::fresh("jwt-auth").await?;
    let proxy = Proxy::to_url(keys.url()).await?;
    let database = Database::fresh("jwt-auth", &MIGRATIONS).await?;
    let child = serve(&database)
        .env("REDIS_URL", proxy.url(keys.url())?)
        .args(&["--deny-list", "--redis-prefix", keys.prefix()])
        .start()
        .await?;
    let api = Api { child, database, http: client()? };
    let pair = api.somebody().await?;
    ensure!(api.me(&pair.access_token).await?.status() == 200);
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let response = api.me(&pair.access_token).await?;
        ensure!(header(&response, "retry-after") == "1", "{fault:?}");
        problem(response, 503).await.with_context(|| format!("{fault:?}"))?;
        problem(api.request(Method::GET, "readyz").send().await?, 503).await?;
        proxy.heal();
        eventually("tokens pass again", async || {
            Ok((api.me(&pair.access_token).await?.status() == 200).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn the_key_set_is_published_without_secrets_and_may_be_cached() -> Outcome {
    let api = Api::start(&[]).await?;
    let pair = api.somebody().await?;
    let response = api.request(Method::GET, ".well-known/jwks.json").send().await?;
    ensure!(response.status() == 200);
    ensure!(header(&response, "content-type") == "application/jwk-set+json");
    ensure!(header(&response, "cache-control") == "public, max-age=300");
    let set: Value = response.json().await?;
    let keys = set["keys"].as_array().with_context(|| set.to_string())?;
    ensure!(keys.len() == 1, "{set}");
    for (member, expected) in [("kty", "OKP"), ("crv", "Ed25519"), ("use", "sig"), ("alg", "EdDSA")]
    {
        ensure!(keys[0][member] == expected, "{set}");
    }
    ensure!(keys[0]["kid"] == part(&pair.access_token, 0)?["kid"], "{set}");
    ensure!(keys[0].get("d").is_none(), "the private key is published: {set}");
    ensure!(URL_SAFE_NO_PAD.decode(keys[0]["x"].as_str().context("x")?)?.len() == 32);
    Ok(())
}

async fn another_service_verifies_with_the_key_set_alone() -> Outcome {
    let api = Api::start(&[]).await?;
    let pair = api.somebody().await?;
    let other = verifier(&api.url(".well-known/jwks.json")).start().await?;
    let me = |token: &str| api.http.get(format!("{}/me", other.url())).bearer_auth(token).send();
    let seen = me(&pair.access_token).await?;
    ensure!(seen.status() == 200, "{}", seen.text().await?);
    ensure!(
        seen.json::<Value>().await? == api.me(&pair.access_token).await?.json::<Value>().await?
    );
    unauthorized(me(&pair.access_token[..pair.access_token.len() - 1]).await?).await?;
    unauthorized(me(&pair.refresh_token).await?).await?;
    problem(api.http.get(format!("{}/me", other.url())).send().await?, 401).await?;
    for path in ["register", "login", "token/refresh", "logout"] {
        let response = api.http.post(format!("{}/{path}", other.url())).json(&json!({})).send();
        problem(response.await?, 404).await.context(path)?;
    }
    ensure!(api.http.get(format!("{}/readyz", other.url())).send().await?.status() == 200);
    // For another audience the same token is none.
    let stranger =
        verifier(&api.url(".well-known/jwks.json")).args(&["--audience", "https://other.example"]);
    let stranger = stranger.start().await?;
    let me = api.http.get(format!("{}/me", stranger.url())).bearer_auth(&pair.access_token);
    unauthorized(me.send().await?).await
}

/// A process that could reach no database if it tried.
fn verifier(key_set: &str) -> ChildBuilder {
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    Child::serve("jwt-auth").env("DATABASE_URL", nowhere).args(&["--jwks", key_set])
}

async fn without_a_key_set_a_verifier_says_so_and_recovers() -> Outcome {
    let api = Api::start(&[]).await?;
    let token = api.somebody().await?.access_token;
    let proxy = Proxy::to(api.child.address()).await?;
    proxy.set(Fault::Cut);
    let key_set = format!("http://{}/.well-known/jwks.json", proxy.address());
    let other = verifier(&key_set).args(&["--jwks-seconds", "0.2"]).start().await?;
    let me = async || api.http.get(format!("{}/me", other.url())).bearer_auth(&token).send().await;
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
    let api = Api::start(&[]).await?;
    let token = api.somebody().await?.access_token;
    let proxy = Proxy::to(api.child.address()).await?;
    let key_set = format!("http://{}/.well-known/jwks.json", proxy.address());
    let other = verifier(&key_set).start().await?;
    let url = format!("{}/me", other.url());
    ensure!(api.http.get(&url).bearer_auth(&token).send().await?.status() == 200);
    let rest = token.split_once('.').context("no token")?.1;
    let forgeries = (0..100).map(|n| {
        let head = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": format!("invented-{n}") });
        let head = URL_SAFE_NO_PAD.encode(head.to_string());
        api.http.get(&url).bearer_auth(format!("{head}.{rest}")).send()
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
    let database = Database::fresh("jwt-auth", &MIGRATIONS).await?;
    let proxy = Proxy::to_url(database.url()).await?;
    let child = serve(&database).env("DATABASE_URL", proxy.url(database.url())?).start().await?;
    let api = Api { child, database, http: client()? };
    let pair = api.somebody().await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        ensure!(api.me(&pair.access_token).await?.status() == 200, "{fault:?}");
        ensure!(api.request(Method::GET, ".well-known/jwks.json").send().await?.status() == 200);
        let refresh = json!({ "refresh_token": pair.refresh_token });
        let (login, register) =
            (credentials("ann@example.com", PASSWORD), credentials("bob@example.com", PASSWORD));
        let calls = [
            ("login", &login),
            ("register", &register),
            ("token/refresh", &refresh),
            ("logout", &refresh),
        ];
        let answers = try_join_all(calls.map(|(path, body)| api.post(path, body))).await?;
        for ((path, _), response) in calls.into_iter().zip(answers) {
            ensure!(header(&response, "retry-after") == "1", "{path} {fault:?}");
            problem(response, 503).await.with_context(|| format!("{path} {fault:?}"))?;
        }
        problem(api.request(Method::GET, "readyz").send().await?, 503).await?;
        ensure!(api.request(Method::GET, "healthz").send().await?.status() == 200);
        proxy.heal();
        api.login("ann@example.com").await?;
    }
    Ok(())
}

async fn a_login_hashes_again_when_the_cost_has_changed() -> Outcome {
    let mut api = Api::start(&[]).await?;
    api.register("ann@example.com").await?;
    let pool = api.database.pool().await?;
    let hash = async || {
        sqlx::query_scalar::<_, String>("select password_hash from users").fetch_one(&pool).await
    };
    let old = hash().await?;
    ensure!(old.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{old}");
    // A wrong password changes nothing.
    let dearer = Child::serve("jwt-auth").database(&api.database);
    let cost = ["--argon2-memory", "128", "--argon2-passes", "1"];
    api.child = dearer.args(&cost).start().await?;
    problem(api.try_login("ann@example.com", "a wrong password").await?, 401).await?;
    ensure!(hash().await? == old);
    api.login("ann@example.com").await?;
    let new = hash().await?;
    ensure!(new.starts_with("$argon2id$v=19$m=128,t=1,p=1$"), "{new}");
    // The password is the same, and with the same cost the hash stays.
    api.login("ann@example.com").await?;
    ensure!(hash().await? == new);
    pool.close().await;
    Ok(())
}

async fn unless_told_otherwise_a_password_costs_what_owasp_asks_for() -> Outcome {
    let database = Database::fresh("jwt-auth", &MIGRATIONS).await?;
    let child = Child::serve("jwt-auth").database(&database).start().await?;
    let api = Api { child, database, http: client()? };
    api.register("ann@example.com").await?;
    let pool = api.database.pool().await?;
    let hash: String =
        sqlx::query_scalar("select password_hash from users").fetch_one(&pool).await?;
    pool.close().await;
    ensure!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    Ok(())
}

async fn the_database_holds_no_password_and_no_token() -> Outcome {
    let api = Api::start(&[]).await?;
    let pair = api.somebody().await?;
    let pool = api.database.pool().await?;
    let mut rows: Vec<String> = Vec::new();
    for query in [
        "select users::text from users",
        "select families::text from families",
        "select refresh_tokens::text from refresh_tokens",
        "select failed_logins::text from failed_logins",
        "select known_clients::text from known_clients",
    ] {
        rows.extend(sqlx::query_scalar::<_, String>(query).fetch_all(&pool).await?);
    }
    pool.close().await;
    ensure!(rows.len() >= 4, "{rows:?}");
    let all = rows.join("\n");
    let bits = URL_SAFE_NO_PAD.decode(&pair.refresh_token)?;
    let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    for secret in [PASSWORD, &pair.refresh_token, &hex, &pair.access_token, "127.0.0.1"] {
        ensure!(!all.contains(secret), "{secret} is there: {all}");
    }
    Ok(())
}

async fn a_body_that_is_none_of_ours_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let pair = api.somebody().await?;
    for (path, good) in [
        ("register", credentials("bob@example.com", PASSWORD)),
        ("login", credentials("ann@example.com", PASSWORD)),
        ("token/refresh", json!({ "refresh_token": pair.refresh_token })),
    ] {
        refuses_bad_bodies(|| api.request(Method::POST, path), &good).await.context(path)?;
    }
    for (body, status) in [
        (r#"{"email":"c@example.com"}"#, 422),
        (r#"{"email":"c@example.com","password":null}"#, 422),
        (r#"{"email":"c@example.com","password":7}"#, 422),
        (r#"{"email":"c@example.com","password":"correct horse","admin":true}"#, 422),
        (r#"{"email":"c@example.com","password":"\ud83e"}"#, 400),
    ] {
        let request =
            api.request(Method::POST, "register").header("content-type", "application/json");
        problem(request.body(body).send().await?, status).await.context(body)?;
    }
    api.register("c@example.com").await?;
    Ok(())
}

async fn a_wrong_method_is_not_allowed_and_a_wrong_path_is_not_found() -> Outcome {
    let api = Api::start(&[]).await?;
    for (method, path) in [
        (Method::GET, "register"),
        (Method::GET, "login"),
        (Method::PUT, "token/refresh"),
        (Method::GET, "logout"),
        (Method::DELETE, "logout/everywhere"),
        (Method::POST, "me"),
        (Method::POST, ".well-known/jwks.json"),
    ] {
        let response = api.request(method.clone(), path).send().await?;
        ensure!(!header(&response, "allow").is_empty(), "{method} {path}: no Allow");
        problem(response, 405).await.with_context(|| format!("{method} {path}"))?;
    }
    for path in ["", "token", "me/", "users/1", ".well-known/jwks.json/x", "%00", "%ff"] {
        problem(api.request(Method::GET, path).send().await?, 404).await.context(path)?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_when_asked() -> Outcome {
    let mut api = Api::start(&[]).await?;
    ensure!(api.request(Method::GET, "healthz").send().await?.status() == 200);
    ensure!(api.request(Method::GET, "readyz").send().await?.status() == 200);
    let pair = api.somebody().await?;
    let status = api.child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    // What was given out is good after a restart: the keys are in the database.
    api.child.restart().await?;
    ensure!(api.me(&pair.access_token).await?.status() == 200);
    tokens(api.refresh(&pair.refresh_token).await?).await?;
    Ok(())
}
