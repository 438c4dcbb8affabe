//! The same four layers in Express, Flask and Django: do the same requests get the same answers?

use conform::{
    http::header,
    target::{Target, eventually},
};
use futures_util::future::join_all;
use lab::{Experiment, Lab, Sabotage, skip};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use super::{
    elsewhere::ALL,
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
         requests. They differ where a path or a header can be read in two ways, and in what goes on after the time-out",
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

/// What each reads in its own way.
const DIFFERENT: [Ask; 3] = [
    ("two keys, the right one first", |it| {
        let request = it.request(Method::GET, "/notes").header("authorization", ADA);
        request.header("authorization", "Bearer nonsense")
    }),
    ("GET /NOTES without a key", |it| it.request(Method::GET, "/NOTES")),
    ("GET /%6eotes without a key", |it| it.request(Method::GET, "/%6eotes")),
];

/// What is compared: the status, the media type, whose id it is, and when to try again.
fn shape(answer: &Response, asked: &str) -> String {
    let kind = header(answer, "content-type").split(';').next().unwrap_or_default().to_owned();
    let id = match header(answer, HEADER.as_str()) {
        "" => "no id",
        id if id == asked => "the client's id",
        _ => "a new id",
    };
    let again = if header(answer, "retry-after").is_empty() { "" } else { ", retry-after" };
    format!("{} {kind}, {id}{again}", answer.status().as_u16())
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
    // The future is dropped, and there is nothing that could end later.
    let mut ended = vec!["handlers that go on after the time-out".to_owned(), "none".to_owned()];
    let mut differing = 0;
    let started = join_all(ALL.map(|framework| framework.start(LIMIT))).await;
    for (framework, started) in ALL.into_iter().zip(started) {
        let running = match started? {
            Ok(running) => running,
            Err(why) => {
                lab.text(format!("skipped: {why}"));
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
        for (row, (_, request)) in different.iter_mut().zip(DIFFERENT) {
            row.push(target.send(request(target)).await?.status().as_u16().to_string());
        }
        // Each round has cut one handler, and each has ended one that was quick.
        let all = u64::from(2 * params.rounds);
        let finished = async || {
            let body = target.get("finished").await?.bytes().await?;
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            anyhow::Ok(body["finished"].as_u64().unwrap_or(0))
        };
        let all = async || Ok((finished().await? == all).then_some(()));
        let goes_on = eventually("handlers that were cut have ended", all).await.is_ok();
        ended.push(if goes_on { "all" } else { "not all" }.to_owned());
    }
    if columns.len() == 2 {
        return Err(skip("neither Express nor Flask nor Django is installed"));
    }
    different.push(ended);
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    lab.table("The same requests", &columns, same);
    lab.table("Where they differ", &columns, different);
    lab.check_eq("answers to the fourteen requests that differ from ours", 0, differing);
    Ok(())
}
