//! API8: good and bad requests to every path, by every method and from every origin. What do the answers give away, and
//! who may read or keep them?

use std::collections::BTreeSet;

use anyhow::Context;
use conform::target::Target;
use lab::{Experiment, Lab, Sabotage};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;

use super::fixture::{Fixture, NOBODY};
use crate::api::routes;
use crate::cases::client::{ADA, Client, OLGA};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rounds over all paths
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "misconfiguration",
        "Every answer, also a refusal, has the headers that make browsers and caches careful; none says what the program is \
         made of; no method does what it should not; and just the origin that was listed may read",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/frame.rs",
        replace: "(CACHE_CONTROL, \"no-store\"),",
        with: "(CACHE_CONTROL, \"private\"),",
        check: "answers without a header that they should have",
    })
    .sabotage(Sabotage {
        file: "src/frame.rs",
        replace: ".allow_origin(origins)",
        with: ".allow_origin(tower_http::cors::AllowOrigin::predicate(move |_, _| !origins.is_empty()))",
        check: "origins that may read and were not listed",
    })
    .sabotage(Sabotage {
        file: "src/error.rs",
        replace: "                problem(500)",
        with: "                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, cause.to_string())",
        check: "answers that say what the program is made of",
    })
}

/// The origin whose pages may read.
const LISTED: &str = "https://app.example";

/// Origins that are not that one, though some look like it.
const ORIGINS: [&str; 10] = [
    "https://evil.example",
    "null",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.evil.example",
    "https://evilapp.example",
    "https://sub.app.example",
    "https://APP.example",
    "https://app.example/",
    "file://",
];

const HEADERS: [(&str, &str); 5] = [
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'"),
    ("referrer-policy", "no-referrer"),
    ("strict-transport-security", "max-age="),
    ("x-content-type-options", "nosniff"),
];

/// What only somebody who has seen the program or its libraries writes.
const WORDS: [&str; 16] = [
    "sqlx",
    "postgres",
    "relation ",
    "constraint",
    "syntax error",
    "src/",
    ".rs:",
    "panicked",
    "backtrace",
    "axum",
    "hyper",
    "serde",
    "argon2",
    "does not exist",
    "column \"",
    "database:",
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let child = fixture.serve().args(&["--allow-origin", LISTED]);
    let child = child.args(&["--webhook-allow", NOBODY]).start().await?;
    let target = Target::new(child.url(), None)?;
    let (ada, olga) = (Client::login(&target, ADA).await?, Client::login(&target, OLGA).await?);
    let id = ada.invoice("Tea").await?;
    // A row that no code of ours makes, so that one statement fails in a way that nobody has thought of.
    let broken = "alter table webhooks alter column url type int using 1";
    sqlx::raw_sql(broken).execute(&fixture.pool).await?;
    let mut seen = Seen::default();
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "good and bad requests to every path");
        for client in [&Client::nobody(&target), &ada, &olga] {
            for request in requests(client, &id) {
                // A body that is too long may be refused by closing the connection.
                if let Ok(answer) = client.target.send(request).await {
                    seen.answer(answer).await?;
                }
            }
        }
    }
    lab.text(format!("{} answers, with the statuses {:?}.", seen.answers, seen.statuses));
    for words in seen.without.iter().chain(&seen.tell).chain(&seen.done).take(10) {
        lab.text(words);
    }
    lab.check_eq("answers without a header that they should have", 0, seen.without.len());
    lab.check_eq("answers that say what the program is made of", 0, seen.tell.len());
    lab.check_eq("methods that did what they should not", 0, seen.done.len());
    // Otherwise nothing was learned about an error that nobody has thought of.
    lab.check("answers of 500", "1 at least", seen.unexpected, seen.unexpected > 0);
    origins(&lab, &ada).await
}

/// To every path of the router and some others: by every method, with no body, a good one and bad ones.
fn requests(client: &Client, id: &str) -> Vec<RequestBuilder> {
    let paths: BTreeSet<_> = routes().table.iter().map(|route| route.path).collect();
    let others = ["/healthz", "/openapi.json", "/nothing", "/invoices?limit=x", "/../etc/passwd"];
    let mut requests = Vec::new();
    for path in paths.into_iter().chain(others) {
        let path = path.replace("{id}", id);
        let request = |method| client.request(method, path.trim_start_matches('/'));
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "TRACE", "PROPFIND", "OPTIONS"] {
            let Ok(method) = Method::from_bytes(method.as_bytes()) else { continue };
            requests.push(request(method));
        }
        for body in ["", "{", "[]", "{\"title\":1}", "{\"url\":\"https://hooks.example.com/\"}"] {
            let request = request(Method::POST).header("content-type", "application/json");
            requests.push(request.body(body));
        }
        let long = request(Method::POST).json(&json!({ "title": "x".repeat(100_000) }));
        requests.push(long.header("connection", "close"));
        // A method in a header is none.
        requests.push(request(Method::GET).header("x-http-method-override", "DELETE"));
    }
    requests
}

#[derive(Default)]
struct Seen {
    answers: u32,
    unexpected: u32,
    statuses: BTreeSet<u16>,
    without: Vec<String>,
    tell: Vec<String>,
    done: Vec<String>,
}

impl Seen {
    async fn answer(&mut self, answer: Response) -> anyhow::Result<()> {
        let exchange = answer.extensions().get::<conform::target::Exchange>();
        let sent = exchange.map(|it| it.sent.clone()).unwrap_or_default();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        self.answers += 1;
        self.unexpected += u32::from(status == 500);
        self.statuses.insert(status);
        let header = |name| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
        let lacks = HEADERS.iter().find(|(name, value)| !header(*name).contains(value));
        if let Some((name, _)) = lacks {
            self.without.push(format!("{sent:.60}: {status}, no {name}"));
        }
        let body = answer.text().await.context("a body")?.to_lowercase();
        let named = ["server", "x-powered-by"].into_iter().find(|name| headers.contains_key(*name));
        if let Some(word) = WORDS.into_iter().find(|word| body.contains(word)).or(named) {
            self.tell.push(format!("{sent:.60}: {status}, {word:?}"));
        }
        let method = sent.split(' ').next().unwrap_or_default();
        if status < 400 && ["PUT", "TRACE", "PROPFIND"].contains(&method) {
            self.done.push(format!("{sent:.60}: {status}"));
        }
        Ok(())
    }
}

/// Who may read an answer, and whether with the cookies of its user.
async fn origins(lab: &Lab, ada: &Client) -> anyhow::Result<()> {
    let (mut others, mut credentials, mut rows) = (0, 0, Vec::new());
    let mut listed = "none".to_owned();
    for origin in ORIGINS.into_iter().chain([LISTED]) {
        for method in [Method::GET, Method::OPTIONS] {
            let request = ada.request(method.clone(), "invoices").header("origin", origin);
            let request = request.header("access-control-request-method", "GET");
            let answer = ada.send(request).await?;
            let header = |name| {
                let value = answer.headers().get(name).and_then(|it| it.to_str().ok());
                value.unwrap_or("none").to_owned()
            };
            let allowed = header("access-control-allow-origin");
            credentials += u32::from(header("access-control-allow-credentials") != "none");
            if origin == LISTED {
                listed.clone_from(&allowed);
            } else {
                others += u32::from(allowed != "none");
            }
            rows.push(vec![origin.to_owned(), method.to_string(), allowed]);
        }
    }
    lab.table("Who may read", &["origin", "method", "Access-Control-Allow-Origin"], rows);
    lab.check_eq("origins that may read and were not listed", 0, others);
    lab.check_eq("the origin that was listed may read", LISTED.to_owned(), listed);
    lab.check_eq("answers that let a browser send its user's cookies", 0, credentials);
    Ok(())
}
