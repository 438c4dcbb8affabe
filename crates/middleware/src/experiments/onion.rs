//! Which way does a request take through the layers? In, and out again in reverse, whatever the order.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::Method,
    response::Response,
};
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;
use tower::ServiceExt;

use super::fixture::{Fixture, written};
use crate::{layer::Name, request_id::HEADER};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Requests of each kind for each order of the layers
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    requests: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "onion",
        "A request leaves the layers in the reverse of the order in which it entered them, for all 120 orders of five. When \
         a layer answers early, those outside it see the answer, and those inside it never see the request. When the time-out \
         cuts, those inside it were entered and never left. The body of an answer comes when all layers have been left",
        &["--requests", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/stack.rs",
        replace: "for name in settings.stack.iter().rev() {",
        with: "for name in &settings.stack {",
        check: "orders in which a request enters the layers as they are listed",
    })
}

const FIVE: [Name; 5] = [Name::RequestId, Name::Trace, Name::Cors, Name::Timeout, Name::Auth];

/// All orders of these.
fn orders(names: &[Name]) -> Vec<Vec<Name>> {
    if names.is_empty() {
        return vec![Vec::new()];
    }
    let first = |at: usize| {
        let mut rest = names.to_vec();
        let name = rest.remove(at);
        orders(&rest).into_iter().map(move |order| [vec![name], order].concat())
    };
    (0..names.len()).flat_map(first).collect()
}

/// The layers that a request has entered, and in which order they gave an answer; and that.
async fn way(
    service: &axum::Router,
    mut request: Request,
) -> anyhow::Result<([Vec<String>; 2], Response)> {
    request.headers_mut().insert(HEADER, "this-one".parse()?);
    let response = service.clone().oneshot(request).await?;
    let ask = Request::get("/stack/this-one").body(Body::empty())?;
    let answer = service.clone().oneshot(ask).await?;
    let body: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 100_000).await?)?;
    let events = body["events"].as_array().cloned().unwrap_or_default();
    let way = ["in", "out"].map(|wanted| {
        let events = events.iter().filter(|it| it["event"] == wanted);
        events.filter_map(|it| it["layer"].as_str().map(str::to_owned)).collect()
    });
    Ok((way, response))
}

/// The names of an order, as far as a layer.
fn until(order: &[Name], name: Name) -> Vec<String> {
    let end = order.iter().position(|it| *it == name).unwrap_or_default();
    order[..=end].iter().map(ToString::to_string).collect()
}

fn backwards(names: &[String]) -> Vec<String> {
    names.iter().rev().cloned().collect()
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let all = orders(&FIVE);
    let (mut listed, mut reversed, mut early) = (0_usize, 0_usize, [0_usize; 2]);
    let mut rows = Vec::new();
    for (n, order) in all.iter().enumerate() {
        lab.progress(n as u64, all.len() as u64, "orders of five layers");
        let service = fixture.router(&["--stack", &written(order)])?;
        let names: Vec<_> = order.iter().map(ToString::to_string).collect();
        let (mut as_listed, mut in_reverse, mut stopped) = (true, true, [true; 2]);
        for _ in 0..params.requests {
            let whole = Request::get("/slow?ms=0").body(Body::empty())?;
            let ([entered, left], _) = way(&service, whole).await?;
            as_listed &= entered == names;
            in_reverse &= left == backwards(&entered) && left.len() == 5;
            // No key, so `auth` answers; and a question of a browser, which `cors` answers.
            let preflight = Request::builder().method(Method::OPTIONS).uri("/slow");
            let preflight = preflight.header("origin", "http://example.org");
            let preflight = preflight.header("access-control-request-method", "GET");
            let stranger = Request::get("/notes").body(Body::empty())?;
            let answered_early =
                [(Name::Auth, stranger), (Name::Cors, preflight.body(Body::empty())?)];
            for (kind, (name, request)) in answered_early.into_iter().enumerate() {
                let ([entered, left], _) = way(&service, request).await?;
                stopped[kind] &= entered == until(order, name) && left == backwards(&entered);
                if n == 0 && rows.len() < 3 {
                    rows.push(vec![format!("{name} answers"), entered.join(" "), left.join(" ")]);
                }
            }
            if n == 0 && rows.len() < 3 {
                rows.push(vec!["the handler answers".into(), entered.join(" "), left.join(" ")]);
            }
        }
        listed += usize::from(as_listed);
        reversed += usize::from(in_reverse);
        for (count, stopped) in early.iter_mut().zip(stopped) {
            *count += usize::from(stopped);
        }
    }
    let cut = try_join_all(all.iter().map(|order| cut(&fixture, order))).await?;
    rows.push(vec!["timeout cuts".into(), cut[0].0.join(" "), cut[0].1.join(" ")]);
    lab.table("One order, and four requests", &["who answers", "entered", "left"], rows);
    let orders = all.len();
    lab.check_eq("orders in which a request enters the layers as they are listed", orders, listed);
    lab.check_eq("orders in which it leaves them in reverse", orders, reversed);
    let [auth, cors] = early;
    let words = "orders in which only the layers outside saw the early answer of";
    lab.check_eq(format!("{words} auth"), orders, auth);
    lab.check_eq(format!("{words} cors"), orders, cors);
    let is_cut = |(order, (entered, left)): (&Vec<Name>, &(Vec<String>, Vec<String>))| {
        let names: Vec<_> = order.iter().map(ToString::to_string).collect();
        *entered == names && *left == backwards(&until(order, Name::Timeout))
    };
    let cut = all.iter().zip(&cut).filter(|one| is_cut(*one)).count();
    lab.check_eq(
        "orders in which those inside the time-out were entered and never left",
        orders,
        cut,
    );
    body(&lab, &fixture).await
}

/// What a request has entered and left whose time is over.
async fn cut(fixture: &Fixture, order: &[Name]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let service = fixture.router(&["--stack", &written(order), "--timeout", "20"])?;
    let endless = Request::get("/slow?ms=60000").body(Body::empty())?;
    let ([entered, left], _) = way(&service, endless).await?;
    Ok((entered, left))
}

/// A stream of 200 ms under a time limit of 100 ms.
async fn body(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let service = fixture.router(&["--stack", &written(&FIVE), "--timeout", "100"])?;
    let stream = Request::get("/stream").body(Body::empty())?;
    let ([entered, left], response) = way(&service, stream).await?;
    let begun = Instant::now();
    let body = to_bytes(response.into_body(), 100_000).await?;
    let took = begun.elapsed();
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let later = left == backwards(&entered) && took > Duration::from_millis(100);
    lab.check(
        "lines of a stream that came after all layers were left, for longer than the time limit",
        "10 in more than 100 ms",
        format!("{lines} in {} ms; layers left before: {}", took.as_millis(), left.len()),
        lines == 10 && later,
    );
    Ok(())
}
