//! The same four layers in Express, Flask and Django: do the same requests get the same answers?

use anyhow::Context;
use conform::{
    http::header,
    target::{Target, eventually},
};
use futures_util::future::join_all;
use lab::{Experiment, Lab, Sabotage, skip};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use super::{
    elsewhere::{ALL, Framework, Running},
    fixture::{ADA, Fixture},
};
use crate::request_id::HEADER;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that each request is sent
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "same-elsewhere",
        "Request id, log, authentication and time-out in Express, Flask and Django give the same answers to the same fourteen \
         requests. /NOTES gets past Express's guard that compares request.path. After a 503 their handlers go on. \
         In Express, what stands behind next() runs before an asynchronous handler has answered",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/auth.rs",
        replace: "let problem = Problem::new(StatusCode::UNAUTHORIZED, \"send `authorization: Bearer KEY`\");",
        with: "let problem = Problem::new(StatusCode::FORBIDDEN, \"send `authorization: Bearer KEY`\");",
        check: "answers to the fourteen requests that differ from ours",
    })
}

type Ask = (&'static str, fn(&Target) -> RequestBuilder);

/// In milliseconds. More than a busy machine needs for anything but `GET /slow`.
const LIMIT: u32 = 1_000;

/// What all agree on.
const SAME: [Ask; 14] = [
    ("GET /healthz", |it| it.request(Method::GET, "/healthz")),
    ("with an id", |it| it.request(Method::GET, "/healthz").header(HEADER, "mine.1_A-b")),
    ("with two ids", |it| {
        it.request(Method::GET, "/healthz").header(HEADER, "one").header(HEADER, "two")
    }),
    ("with an id of two words", |it| it.request(Method::GET, "/healthz").header(HEADER, "a b")),
    ("with a long id", |it| it.request(Method::GET, "/healthz").header(HEADER, "x".repeat(65))),
    ("GET /notes", |it| it.request(Method::GET, "/notes")),
    ("with the key", |it| it.request(Method::GET, "/notes").header("authorization", ADA)),
    ("bearer", |it| it.request(Method::GET, "/notes").header("authorization", "bearer let-ada-in")),
    ("with another key", |it| {
        it.request(Method::GET, "/notes").header("authorization", "Bearer nonsense")
    }),
    ("GET /notes/", |it| it.request(Method::GET, "/notes/")),
    ("GET /nothing", |it| it.request(Method::GET, "/nothing")),
    ("POST /panic", |it| it.request(Method::POST, "/panic")),
    ("GET /slow?ms=10", |it| it.request(Method::GET, "/slow?ms=10")),
    ("GET /slow?ms=3000", |it| it.request(Method::GET, "/slow?ms=3000")),
];

/// Without a key, for a guard and a router that may read a path in two ways.
const IN_CAPITALS: &str = "GET /NOTES without a key";

/// What each reads in its own way.
const DIFFERENT: [Ask; 3] = [
    ("two keys, the right one first", |it| {
        let request = it.request(Method::GET, "/notes").header("authorization", ADA);
        request.header("authorization", "Bearer nonsense")
    }),
    (IN_CAPITALS, |it| it.request(Method::GET, "/NOTES")),
    ("GET /%6eotes without a key", |it| it.request(Method::GET, "/%6eotes")),
];

/// What is compared: the status, the media type, whose id it is, which key is wanted, and when to try again.
fn shape(answer: &Response, asked: &str) -> String {
    let kind = header(answer, "content-type").split(';').next().unwrap_or_default().to_owned();
    let id = match header(answer, HEADER.as_str()) {
        "" => "no id",
        id if id == asked => "the client's id",
        _ => "a new id",
    };
    let again = if header(answer, "retry-after").is_empty() { "" } else { ", retry-after" };
    let key = header(answer, "www-authenticate");
    format!("{} {kind}, {id}{again} {key}", answer.status().as_u16()).trim_end().to_owned()
}

async fn ask(target: &Target, request: RequestBuilder) -> anyhow::Result<String> {
    let asked = request.try_clone().and_then(|request| request.build().ok());
    let ids = asked.map(|it| it.headers().get_all(HEADER).iter().cloned().collect::<Vec<_>>());
    let ids = ids.unwrap_or_default();
    let asked = if let [id] = &ids[..] { id.to_str().unwrap_or_default() } else { "" };
    Ok(shape(&target.send(request).await?, asked))
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let stack = "request-id,trace,catch-panic,timeout,auth";
    let (_child, ours) =
        fixture.start(&["--stack", stack, "--timeout", &LIMIT.to_string()]).await?;
    let mut columns = vec!["request".to_owned(), "axum".to_owned()];
    let mut same: Vec<Vec<String>> = Vec::new();
    for (name, request) in SAME {
        same.push(vec![name.into(), ask(&ours, request(&ours)).await?]);
    }
    let mut different: Vec<Vec<String>> = Vec::new();
    for (name, request) in DIFFERENT {
        let status = ours.send(request(&ours)).await?.status().as_u16();
        different.push(vec![name.into(), status.to_string()]);
    }
    let mut ended =
        vec!["handlers that go on after the time-out".to_owned(), "see timeout".to_owned()];
    let mut behind =
        vec!["ms behind next for a handler of 300 ms".to_owned(), "not asked".to_owned()];
    let (mut differing, mut skipped) = (0, 0);
    let started = join_all(ALL.map(|framework| framework.start(LIMIT))).await;
    for (framework, started) in ALL.into_iter().zip(started) {
        let running = match started? {
            Ok(running) => running,
            Err(why) => {
                lab.text(format!("skipped: {why}"));
                skipped += 1;
                continue;
            }
        };
        columns.push(format!("{framework:?}"));
        let target = &running.target;
        for round in 0..params.rounds {
            lab.progress(round.into(), params.rounds.into(), format!("{framework:?}"));
            for (row, (_, request)) in same.iter_mut().zip(SAME) {
                let seen = ask(target, request(target)).await?;
                differing += u32::from(seen != row[1]);
                if round == 0 {
                    let cell = if seen == row[1] { "the same".to_owned() } else { seen };
                    row.push(cell);
                }
            }
        }
        let is_express = framework == Framework::Express;
        for (row, (name, request)) in different.iter_mut().zip(DIFFERENT) {
            let status = target.send(request(target)).await?.status().as_u16();
            row.push(status.to_string());
            if name == IN_CAPITALS {
                // Express's router ignores case.
                let expected = if is_express { 200 } else { 404 };
                lab.check_eq(format!("{framework:?}: {name}"), expected, status);
            }
        }
        let late = number(target, "behind-next", "ms").await?;
        behind.push(format!("{late:.0}"));
        let (name, held) = if is_express {
            ("less than 300", late < 300.0)
        } else {
            ("300 at least", late >= 299.0)
        };
        lab.check(format!("{framework:?}: {}", behind[0]), name, format!("{late:.0}"), held);
        // Each round has cut one handler, and each has ended one that was quick; and one took 300 ms.
        let all = f64::from(2 * params.rounds + 1);
        let finished = async || anyhow::Ok(number(target, "finished", "finished").await? >= all);
        let finished = async || Ok(finished().await?.then_some(()));
        let goes_on = eventually("handlers that were cut have ended", finished).await.is_ok();
        let seen = if goes_on { "all" } else { "not all" };
        lab.check_eq(format!("{framework:?}: cut handlers that go on"), "all", seen);
        ended.push(seen.to_owned());
        if is_express {
            lab.check_eq(
                "Express: an error that nobody catches ends the process",
                true,
                crash(&running).await,
            );
        }
    }
    if columns.len() == 2 {
        return Err(skip("neither Express nor Flask nor Django is installed"));
    }
    different.extend([ended, behind]);
    lab.figure("frameworks that were skipped", f64::from(skipped), "");
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    lab.table("The same requests", &columns, same);
    lab.table("Where they differ", &columns, different);
    lab.check_eq("answers to the fourteen requests that differ from ours", 0, differing);
    Ok(())
}

/// A number that a framework's program says. `GET /behind-next` is asked after a request of 300 ms.
async fn number(target: &Target, path: &str, name: &str) -> anyhow::Result<f64> {
    if path == "behind-next" {
        target.get("slow?ms=300").await?;
    }
    let body: Value = serde_json::from_slice(&target.get(path).await?.bytes().await?)?;
    body[name].as_f64().with_context(|| format!("no {name} in {body}"))
}

/// Whether a request whose handler throws where no framework catches it ends the program.
async fn crash(running: &Running) -> bool {
    // Its connection breaks.
    let _ = running.target.ask(Method::POST, "crash").await;
    let gone = async || Ok(running.target.get("healthz").await.is_err().then_some(()));
    eventually("nobody answers any more", gone).await.is_ok()
}
