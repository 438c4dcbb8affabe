//! Does what a layer learned stay with its request? In the handler, in a task of its own, and in a call to another service.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::HeaderMap,
    middleware::{Next, from_fn},
    response::Response,
    routing::{get, post},
};
use conform::{http::header, target::Target};
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage, harness::eventually, serve::here};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::fixture::Fixture;
use crate::request_id::HEADER;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Users that ask at the same moment
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=200))]
    users: u32,
    /// How often all of them ask
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "context",
        "What the layers learned (who asks, and the request's id) reaches the handler, the log lines of tasks and calls to \
         other services. A hundred parallel requests never see each other's. In a thread-local they do",
        &["--users", "40", "--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/context.rs",
        replace: "tokio::spawn(CONTEXT.scope(Context::current(), work).in_current_span())",
        with: "tokio::spawn(work)",
        check: "calls to the other service without the right id and user",
    })
}

/// What the other service was told: the id in the header, and the body.
type Told = Arc<Mutex<Vec<(String, String)>>>;

async fn audit(State(told): State<Told>, headers: HeaderMap, body: String) {
    let id = headers.get(HEADER).and_then(|id| id.to_str().ok()).unwrap_or_default();
    told.lock().unwrap_or_else(PoisonError::into_inner).push((id.to_owned(), body));
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let told = Told::default();
    let other = here(Router::new().route("/", post(audit)).with_state(Arc::clone(&told))).await?;
    let keys: Vec<_> =
        (0..params.users).flat_map(|n| ["--key".into(), format!("user-{n}=key-{n}")]).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let lines = 10 * (params.users * params.rounds) as usize;
    let audit = format!("http://{}/", other.host);
    let child = fixture.serve().args(&keys).args(&["--audit", &audit]).keep_lines(lines);
    let child = child.start().await?;
    let target = Target::new(child.url(), None)?;
    let all = params.users * params.rounds;
    let (mut owners, mut ids) = (0, 0);
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "all users at once");
        let asks = (0..params.users).map(async |n| {
            let (id, note) = (format!("r{round}-{n}"), json!({ "text": format!("note {n}") }));
            let request = || target.request(reqwest::Method::POST, "/notes").json(&note);
            let request = || request().bearer_auth(format!("key-{n}")).header(HEADER, &id);
            anyhow::Ok(target.send_patiently(request).await?.0)
        });
        for (n, answer) in try_join_all(asks).await?.into_iter().enumerate() {
            ids += u32::from(header(&answer, HEADER.as_str()) != format!("r{round}-{n}"));
            let note: Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
            owners += u32::from(note["owner"] != format!("user-{n}"));
        }
    }
    let log = whole_log(&child, all).await;
    // A call that takes longer than its second is given up, and its task says so.
    let given_up = log.lines().filter(|it| it.contains("the audit was not told")).count();
    let given_up = u32::try_from(given_up)?;
    lab.check("calls that were given up", "fewer than half", given_up, given_up * 2 < all);
    let expected = all.saturating_sub(given_up);
    lab.check_eq("answers with another request's id", 0, ids);
    lab.check_eq("handlers that took the request for another user's", 0, owners);
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let right = |(id, body): &(String, String)| {
        let n = id.rsplit('-').next().unwrap_or_default();
        (!n.is_empty() && *body == format!("user-{n}: note {n}")).then(|| id.clone())
    };
    let wrong = missing(expected, told.iter().map(right));
    lab.check_eq("calls to the other service without the right id and user", 0, wrong);
    logged(&lab, &log, expected);
    let mixed = thread_local(params.users).await?;
    lab.check(
        "with a thread-local: requests that saw another's user",
        "1 or more",
        mixed,
        mixed > 0,
    );
    Ok(())
}

/// The log, when it has a line for each note that was made. It comes on another way than the answers.
async fn whole_log(child: &lab::child::Child, all: u32) -> String {
    let last = eventually("the last lines of the log", async || {
        let log = child.log();
        let lines = log.lines().filter(|line| line.contains("answered status=201")).count();
        Ok((lines >= all as usize).then_some(log))
    });
    last.await.unwrap_or_else(|_| child.log())
}

/// The lines that tasks of their own have written.
fn logged(lab: &Lab, log: &str, all: u32) {
    let written = log.lines().filter(|line| line.contains("the audit was told"));
    let right = |line: &str| {
        let part = |from: &str| line.split(from).nth(1).and_then(|it| it.split('"').next());
        let id = part("id=\"")?;
        (id.rsplit('-').next() == part("user=\"user-")).then(|| id.to_owned())
    };
    let wrong = missing(all, written.map(right));
    lab.check_eq("log lines of tasks without the right id and user", 0, wrong);
}

/// How many of so many requests have left no right mark, and how many marks are wrong. A request that was sent again after a
/// 503 may have left two.
fn missing(all: u32, marks: impl Iterator<Item = Option<String>>) -> usize {
    let (mut right, mut wrong) = (BTreeSet::new(), 0);
    for mark in marks {
        match mark {
            Some(id) => drop(right.insert(id)),
            None => wrong += 1,
        }
    }
    (all as usize).saturating_sub(right.len()) + wrong
}

thread_local! {
    static USER: Cell<u32> = const { Cell::new(0) };
}

#[derive(Deserialize)]
struct Who {
    user: u32,
}

/// A layer that keeps the user in a variable of the thread, as in a server that has a thread for each request.
async fn remembers(Query(Who { user }): Query<Who>, request: Request, next: Next) -> Response {
    USER.set(user);
    next.run(request).await
}

/// A handler that waits, as for a database. Meanwhile its thread works for others.
async fn whose() -> String {
    sleep(Duration::from_millis(20)).await;
    USER.get().to_string()
}

/// How many of so many requests at once saw the user of another one.
async fn thread_local(users: u32) -> anyhow::Result<usize> {
    let here = here(Router::new().route("/", get(whose)).layer(from_fn(remembers))).await?;
    let target = Target::new(&format!("http://{}", here.host), None)?;
    let asks = (0..users).map(async |n| {
        let seen = target.get(&format!("?user={n}")).await?.text().await?;
        anyhow::Ok(seen.parse::<u32>()? != n)
    });
    Ok(try_join_all(asks).await?.into_iter().filter(|mixed| *mixed).count())
}
