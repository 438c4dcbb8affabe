//! Does the authentication service do what cannot be seen from outside, or not with the options that its table of calls
//! (`conform`) is tried with? Its limits, its times, its servers, its faults.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use conform::http::{client, header, problem};
use futures_util::future::{join_all, try_join_all};
use jwt_auth::MIGRATIONS;
use lab::{
    child::{Child, ChildBuilder},
    database::Database,
    fault::{Fault, Proxy},
    harness::{Outcome, Served, eventually, run},
    keys::Keys,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

fn main() -> ExitCode {
    run(jwt_auth::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let database = Database::fresh("jwt-auth", &MIGRATIONS).await?;
    // All failed logins come from one client here, and how long a guess takes is not what the cases are about.
    let options =
        [["--failures-per-client", "1000000"], ["--argon2-memory", "64"], ["--argon2-passes", "1"]];
    let child = Child::serve("jwt-auth").database(&database).args(options.as_flattened());
    Ok(Served::new(child.start().await?, database))
}

lab::tests![
    guesses_of_one_client_are_slowed_down_and_another_client_is_not,
    an_attacker_elsewhere_does_not_keep_the_owner_out,
    a_login_that_is_turned_away_is_not_counted_as_failed,
    a_token_is_refused_after_its_life_and_the_leeway,
    a_refresh_token_used_again_after_the_grace_ends_its_whole_family,
    a_refresh_token_that_is_too_old_is_refused,
    with_a_deny_list_a_revoked_sessions_access_tokens_end_at_once,
    while_the_deny_list_is_away_no_token_passes_and_then_they_do_again,
    another_service_verifies_with_the_key_set_alone,
    without_a_key_set_a_verifier_says_so_and_recovers,
    invented_key_ids_do_not_make_a_verifier_fetch_again_and_again,
    while_the_database_is_away_tokens_are_verified_and_nobody_logs_in,
    a_login_hashes_again_when_the_cost_has_changed,
    unless_told_otherwise_a_password_costs_what_owasp_asks_for,
    the_database_holds_no_password_and_no_token,
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

/// So many more logins than can be hashed in two seconds that most of them are answered with 503.
async fn a_login_that_is_turned_away_is_not_counted_as_failed() -> Outcome {
    let dear = ["--argon2-memory", "19456", "--argon2-passes", "12"];
    let limit = ["--failures-per-client", "1000000"];
    let database = Database::fresh("jwt-auth", &MIGRATIONS).await?;
    let child = Child::serve("jwt-auth").database(&database).args(&dear).args(&limit);
    let api = Api { child: child.start().await?, database, http: client()? };
    let cores = std::thread::available_parallelism()?.get();
    // Each for an address of its own, which nobody has.
    let statuses = try_join_all((0..40 * cores).map(|n| {
        let api = &api;
        async move {
            let response = api.try_login(&format!("{n}@example.com"), "a wrong password").await?;
            anyhow::Ok(response.status().as_u16())
        }
    }))
    .await?;
    let turned_away = statuses.iter().filter(|&&status| status == 503).count();
    ensure!(turned_away > 0, "nobody was turned away: {statuses:?}");
    let others = i64::try_from(statuses.len() - turned_away)?;
    // Of the accounts and of the one client together: each attempt is charged to both.
    let pool = api.database.pool().await?;
    let counted: i64 = sqlx::query_scalar("select sum(failures)::bigint from failed_logins")
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    ensure!(counted == 2 * others, "{counted} counted, {others} were looked at: {statuses:?}");
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

async fn a_refresh_token_that_is_too_old_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let pair = api.somebody().await?;
    let pool = api.database.pool().await?;
    sqlx::query("update refresh_tokens set expires_at = now()").execute(&pool).await?;
    pool.close().await;
    unauthorized(api.refresh(&pair.refresh_token).await?).await
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
