//! What needs options, a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use conform::expect::json_of;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::{Target, within};
use lab::{
    child::Child,
    fault::{Fault, Proxy},
    harness::{Outcome, Served, run},
};
use secure_api::{
    cases::client::{ADA, Client, GIL, PASSWORD},
    error::Error,
    experiments::fixture::{Fixture, KEY, NOBODY},
};
use serde_json::json;

fn main() -> ExitCode {
    run(secure_api::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    let (child, _) = fixture.start(NOBODY).await?;
    Ok(Served::new(child, fixture).word("password", PASSWORD))
}

lab::tests![
    guesses_at_one_account_have_to_wait_and_other_clients_do_not,
    a_client_that_tries_many_accounts_has_to_wait,
    a_listed_origin_reads_answers_and_no_other_does,
    secrets_are_in_no_line_of_the_log_and_in_no_argument,
    it_is_not_served_to_others_without_tls_or_a_proxy_that_is_named,
    a_receiver_elsewhere_cannot_be_allowed,
    what_is_no_origin_cannot_be_allowed,
    a_short_password_is_refused,
    a_page_of_another_site_does_not_reach_the_careless_version,
    the_log_names_the_user_also_when_it_says_more,
    the_next_page_of_an_export_is_of_the_same_query,
    work_that_is_refused_leaves_nothing_behind,
    work_for_a_customer_is_done_as_a_role_that_every_server_has,
    a_database_that_is_away_is_told_and_the_next_request_works,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

/// A server with these options.
async fn start(fixture: &Fixture, options: &[&str]) -> anyhow::Result<(Child, Target)> {
    let child = fixture.serve_with(options).start().await?;
    let target = Target::new(child.url(), None)?;
    Ok((child, target))
}

async fn guess(target: &Target, email: &str, client: &str) -> anyhow::Result<u16> {
    let body = json!({ "email": email, "password": "wrong" });
    let request = target.request(reqwest::Method::POST, "login").json(&body);
    let response = target.send(request.header("x-forwarded-for", client)).await?;
    let status = response.status().as_u16();
    if status == 429 {
        ensure!(!header(&response, "retry-after").is_empty(), "{response:?}");
    }
    problem(response, status).await?;
    Ok(status)
}

async fn guesses_at_one_account_have_to_wait_and_other_clients_do_not() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let options = ["--logins-per-account", "3", "--trusted-proxy", "127.0.0.0/8"];
    let (_child, target) = start(&fixture, &options).await?;
    for _ in 0..3 {
        ensure!(guess(&target, ADA, "192.0.2.1").await? == 401);
    }
    ensure!(guess(&target, ADA, "192.0.2.1").await? == 429);
    ensure!(guess(&target, ADA, "192.0.2.2").await? == 401, "another client");
    ensure!(guess(&target, GIL, "192.0.2.1").await? == 401, "another account");
    // More than all clients together may: a stranger who goes on keeps nobody else out.
    for _ in 0..40 {
        ensure!(guess(&target, ADA, "192.0.2.1").await? == 429);
    }
    let body = json!({ "email": ADA, "password": PASSWORD });
    let owner = target.request(reqwest::Method::POST, "login").json(&body);
    let owner = target.send(owner.header("x-forwarded-for", "192.0.2.3")).await?;
    ensure!(owner.status() == 200, "the owner, elsewhere: {owner:?}");
    Ok(())
}

async fn a_client_that_tries_many_accounts_has_to_wait() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = start(&fixture, &["--logins-per-client", "5"]).await?;
    for n in 0..5 {
        // A header that no proxy wrote makes nobody another client.
        let client = format!("192.0.2.{n}");
        ensure!(guess(&target, &format!("n{n}@acme.example"), &client).await? == 401);
    }
    ensure!(guess(&target, "n5@acme.example", "192.0.2.5").await? == 429);
    Ok(())
}

async fn a_listed_origin_reads_answers_and_no_other_does() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let listed = "https://app.example";
    let (_child, target) = start(&fixture, &["--allow-origin", listed]).await?;
    for (origin, expected) in [
        (listed, listed),
        ("https://app.example.evil.example", ""),
        ("http://app.example", ""),
        ("null", ""),
    ] {
        for method in [reqwest::Method::GET, reqwest::Method::OPTIONS] {
            let request = target.request(method, "invoices").header("origin", origin);
            let request = request.header("access-control-request-method", "GET");
            let response = target.send(request).await?;
            let seen = header(&response, "access-control-allow-origin");
            ensure!(seen == expected, "{origin}: {seen}");
            let credentials = header(&response, "access-control-allow-credentials");
            ensure!(credentials.is_empty(), "{credentials}");
        }
    }
    Ok(())
}

async fn secrets_are_in_no_line_of_the_log_and_in_no_argument() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (child, target) = fixture.start(NOBODY).await?;
    let ada = Client::login(&target, ADA).await?;
    let log = child.log();
    ensure!(!log.contains(PASSWORD) && !log.contains(KEY), "{log}");
    ensure!(!log.contains(&ada.token.unwrap_or_default()), "{log}");
    // Everybody on the machine may read the arguments of a program.
    if cfg!(target_os = "linux") {
        let pid = child.pid().context("it has ended")?;
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let arguments = String::from_utf8_lossy(&arguments);
        ensure!(arguments.contains("serve"), "{arguments}");
        ensure!(!arguments.contains(PASSWORD) && !arguments.contains(KEY), "{arguments}");
    }
    Ok(())
}

async fn it_is_not_served_to_others_without_tls_or_a_proxy_that_is_named() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let refused =
        start(&fixture, &["--host", "0.0.0.0"]).await.err().map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|words| words.contains("without TLS")), "{refused:?}");
    start(&fixture, &["--host", "0.0.0.0", "--trusted-proxy", "10.0.0.0/8"]).await?;
    Ok(())
}

async fn a_receiver_elsewhere_cannot_be_allowed() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let refused = start(&fixture, &["--webhook-allow", "10.0.0.1:80"]).await.err();
    let refused = refused.map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|words| words.contains("loopback")), "{refused:?}");
    Ok(())
}

async fn what_is_no_origin_cannot_be_allowed() -> Outcome {
    let fixture = Fixture::fresh().await?;
    for origin in ["*", "null", "https://app.example/"] {
        let refused = start(&fixture, &["--allow-origin", origin]).await.err();
        let refused = refused.map(|error| error.to_string());
        let says = |words: &String| words.contains("--allow-origin: write");
        ensure!(refused.as_ref().is_some_and(says), "{origin}: {refused:?}");
    }
    Ok(())
}

async fn a_short_password_is_refused() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let refused = fixture.serve().env("SECURE_API_PASSWORD", "fourteen chars").start().await.err();
    let refused = refused.map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|words| words.contains("15 characters")), "{refused:?}");
    Ok(())
}

async fn a_page_of_another_site_does_not_reach_the_careless_version() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = start(&fixture, &["--whiteboard"]).await?;
    ensure!(target.get("healthz").await?.status() == 200);
    for (name, value) in [("sec-fetch-site", "cross-site"), ("host", "rebound.evil.example")] {
        for (method, path) in [
            (reqwest::Method::GET, "healthz"),
            (reqwest::Method::POST, "login"),
            (reqwest::Method::OPTIONS, "login"),
        ] {
            let request = target.request(method, path).header(name, value);
            problem(target.send(request).await?, 403).await?;
        }
    }
    Ok(())
}

async fn the_log_names_the_user_also_when_it_says_more() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let child = fixture.serve().env("RUST_LOG", "debug").start().await?;
    let target = Target::new(child.url(), None)?;
    let ada = Client::login(&target, ADA).await?;
    ensure!(ada.get("invoices").await?.status() == 200);
    let user = format!("user={}", fixture.caller(ADA).await?.user);
    // Another task reads the lines.
    within(Duration::from_secs(5), "a line with the user", async || {
        let log = child.log();
        let named = |line: &str| line.contains("answered") && line.contains(&user);
        Ok(log.lines().any(named).then_some(()))
    })
    .await
}

async fn the_next_page_of_an_export_is_of_the_same_query() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    let ada = Client::login(&target, ADA).await?;
    let mut ids = Vec::new();
    for title in ["green tea", "coffee", "green tea", "green tea"] {
        ids.push(ada.invoice(title).await?);
    }
    let first = ada.get("exports?sort=-created_at&search=green+tea&limit=1").await?;
    let link = header(&first, "link").to_owned();
    let id = &ids[3];
    let next = format!("/exports?sort=-created_at&search=green+tea&limit=1&after={id}");
    ensure!(link == format!("<{next}>; rel=\"next\""), "{link}");
    let second = ada.get(next.trim_start_matches('/')).await?;
    let link = header(&second, "link").to_owned();
    ensure!(link == format!("<{}>; rel=\"next\"", next.replace(id, &ids[2])), "{link}");
    Ok(())
}

async fn work_that_is_refused_leaves_nothing_behind() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    let id = Client::login(&target, ADA).await?.invoice("Tea").await?;
    let (store, ada) = (fixture.store()?, fixture.caller(ADA).await?);
    let refused = store.tenant(ada, async |tx| {
        sqlx::query("update invoices set title = 'half done'").execute(tx).await?;
        Err::<(), _>(Error::NOT_FOUND)
    });
    ensure!(refused.await.is_err());
    ensure!(store.find(ada, id.parse()?).await?.title == "Tea");
    Ok(())
}

async fn work_for_a_customer_is_done_as_a_role_that_every_server_has() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    Client::login(&target, ADA).await?.invoice("Tea").await?;
    // PostgreSQL keeps the numbers below 16384 for what it brings itself.
    let role = "select rolname, oid::int8 < 16384, rolsuper or rolbypassrls or rolcanlogin
                from pg_roles where rolname = current_user";
    let ada = fixture.caller(ADA).await?;
    let (name, of_every_server, may_more): (String, bool, bool) = fixture
        .store()?
        .tenant(ada, async |tx| Ok(sqlx::query_as(role).fetch_one(tx).await?))
        .await?;
    ensure!(name == "pg_database_owner" && of_every_server && !may_more, "{name}");
    Ok(())
}

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let target = Target::new(child.url(), None)?;
    let ada = Client::login(&target, ADA).await?;
    let path = format!("invoices/{}", ada.invoice("Tea").await?);
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in [path.as_str(), "invoices", "readyz"] {
            let response = target.send(ada.request(reqwest::Method::GET, path)).await?;
            ensure!(header(&response, "retry-after") == "1", "{fault:?}: {response:?}");
            problem(response, 503).await?;
        }
        ensure!(target.get("healthz").await?.status() == 200);
        proxy.heal();
        json_of(ada.get(&path).await?, 200).await?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (mut child, target) = fixture.start(NOBODY).await?;
    lives_and_is_ready(&target).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
