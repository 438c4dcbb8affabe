//! How does each layer say no? The client reads one format, or several.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use anyhow::ensure;
use conform::{
    http::{header, problem},
    target::Target,
};
use futures_util::stream;
use lab::{Experiment, Lab, Sabotage, serve::here};
use reqwest::{Body, Method, RequestBuilder, Response};

use super::{
    compare::usual,
    fixture::{ADA, Fixture},
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that each error is asked for, in each of the three forms
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "errors",
        "Whichever layer answers, an error is a problem document with the request's id, which a page of another origin may \
         read. The usual layers send text or nothing, and with the JSON of a handler that makes three formats",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/limits.rs",
        replace: "with_problems(around(&limit, inner))",
        with: "around(&limit, inner)",
        check: "errors that are no problem document",
    })
}

/// Each error: who answers, with which status, and what asks for it.
type Asks = (&'static str, u16, fn(&Target) -> RequestBuilder);

const ERRORS: [Asks; 10] = [
    ("auth", 401, |target| target.request(Method::GET, "/notes")),
    ("timeout", 503, |target| target.request(Method::GET, "/slow?ms=30000")),
    ("body-limit", 413, |target| {
        // It says how long its body is, and sends nothing of it. What a server leaves unread when it closes the connection
        // may take the answer with it.
        let nothing = stream::pending::<io::Result<Vec<u8>>>();
        let long = target.request(Method::POST, "/echo").body(Body::wrap_stream(nothing));
        long.header("content-length", "1100000").header("connection", "close")
    }),
    ("catch-panic", 500, |target| target.request(Method::POST, "/panic")),
    ("handler: no note", 404, |target| {
        target.request(Method::GET, "/notes/none").header("authorization", ADA)
    }),
    ("router: no path", 404, |target| target.request(Method::GET, "/nothing")),
    ("router: no text in a path", 404, |target| target.request(Method::GET, "/stack/%ff")),
    ("router: no method", 405, |target| target.request(Method::DELETE, "/slow")),
    ("extractor: no JSON", 415, |target| {
        target.request(Method::POST, "/notes").header("authorization", ADA).body("{}")
    }),
    ("extractor: bad JSON", 400, |target| {
        let request = target.request(Method::POST, "/notes").header("authorization", ADA);
        request.header("content-type", "application/json").body("{")
    }),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut wrong = BTreeMap::from([("no problem", 0), ("no id", 0), ("not readable", 0)]);
    let mut rows = Vec::new();
    let usual = here(usual::router()).await?;
    let usual = Target::new(&format!("http://{}", usual.host), None).map(|it| (it, usual))?;
    let mut formats = BTreeSet::new();
    for (who, _, ask) in ERRORS {
        let answer = usual.0.send(ask(&usual.0).header("origin", "http://a.example")).await?;
        let status = answer.status().as_u16();
        let format = format_of(answer).await?;
        rows.push(vec![who.to_owned(), format!("{status} {format}")]);
        formats.insert(format);
    }
    for form in ["from-fn", "by-hand", "library"] {
        let (_child, target) = fixture.start(&["--form", form, "--timeout", "400"]).await?;
        let (_strict, strict) = fixture.start(&["--form", form, "--rate", "1"]).await?;
        let first = strict.get("slow?ms=0").await?.status();
        ensure!(first == 200, "the first of a minute was answered with {first}");
        let limited: Asks = ("rate-limit", 429, |target| target.request(Method::GET, "/slow?ms=0"));
        for round in 0..params.rounds {
            lab.progress(round.into(), params.rounds.into(), format!("errors, {form}"));
            let all = ERRORS.map(|error| (&target, error));
            for (at, (who, status, ask)) in all.into_iter().chain([(&strict, limited)]) {
                let sent = at.send(ask(at).header("origin", "http://a.example")).await;
                let Ok(answer) = sent else {
                    // The connection was closed, and that is no problem document either.
                    for count in wrong.values_mut() {
                        *count += 1;
                    }
                    continue;
                };
                let named = !header(&answer, "x-request-id").is_empty();
                let readable = header(&answer, "access-control-allow-origin") == "*";
                let came = answer.status().as_u16();
                let found = problem(answer, status).await;
                if round == 0 && form == "by-hand" {
                    let words = found
                        .as_ref()
                        .map_or_else(ToString::to_string, |it| it["detail"].to_string());
                    match rows.iter_mut().find(|row| row[0] == who) {
                        Some(row) => row.push(format!("{came} {words}")),
                        None => rows.push(vec![who.into(), "—".into(), format!("{came} {words}")]),
                    }
                }
                for (what, is_wrong) in
                    [("no problem", found.is_err()), ("no id", !named), ("not readable", !readable)]
                {
                    *wrong.entry(what).or_default() += u32::from(is_wrong);
                }
            }
        }
    }
    lab.table("Each error", &["who answers", "the usual set-up", "ours"], rows);
    lab.check_eq("errors that are no problem document", 0, wrong["no problem"]);
    lab.check_eq("errors without the request's id", 0, wrong["no id"]);
    lab.check_eq("errors that a page of another origin cannot read", 0, wrong["not readable"]);
    let (many, words) = (formats.len(), "the usual set-up: formats of these errors");
    lab.check(words, "3 or more", many, many >= 3);
    Ok(())
}

/// What a client would have to parse.
async fn format_of(answer: Response) -> anyhow::Result<String> {
    let kind = header(&answer, "content-type").split(';').next().unwrap_or_default().to_owned();
    let body = answer.text().await?;
    Ok(match (kind.as_str(), body.is_empty()) {
        (_, true) => "nothing".to_owned(),
        ("", false) => "text without a type".to_owned(),
        (kind, false) => kind.to_owned(),
    })
}
