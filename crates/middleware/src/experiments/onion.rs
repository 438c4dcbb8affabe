//! Which way does a request take through the layers? In, and out again in reverse, whatever the order.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::Method,
};
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
         a layer answers early, those outside it see the answer, and those inside it never see the request",
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

/// The layers that a request has entered, and in which order they gave an answer.
async fn way(service: &axum::Router, mut request: Request) -> anyhow::Result<[Vec<String>; 2]> {
    request.headers_mut().insert(HEADER, "this-one".parse()?);
    service.clone().oneshot(request).await?;
    let ask = Request::get("/stack/this-one").body(Body::empty())?;
    let answer = service.clone().oneshot(ask).await?;
    let body: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 100_000).await?)?;
    let events = body["events"].as_array().cloned().unwrap_or_default();
    Ok(["in", "out"].map(|wanted| {
        let events = events.iter().filter(|it| it["event"] == wanted);
        events.filter_map(|it| it["layer"].as_str().map(str::to_owned)).collect()
    }))
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
        let until = |name: Name| {
            let end = order.iter().position(|it| *it == name).unwrap_or_default();
            names[..=end].to_vec()
        };
        let backwards = |names: &[String]| names.iter().rev().cloned().collect::<Vec<_>>();
        let (mut as_listed, mut in_reverse, mut stopped) = (true, true, [true; 2]);
        for _ in 0..params.requests {
            let whole = Request::get("/slow?ms=0").body(Body::empty())?;
            let [entered, left] = way(&service, whole).await?;
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
                let [entered, left] = way(&service, request).await?;
                stopped[kind] &= entered == until(name) && left == backwards(&entered);
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
    lab.table("One order, and three requests", &["who answers", "entered", "left"], rows);
    let orders = all.len();
    lab.figure("orders", orders as f64, "");
    lab.check_eq("orders in which a request enters the layers as they are listed", orders, listed);
    lab.check_eq("orders in which it leaves them in reverse", orders, reversed);
    let [auth, cors] = early;
    let words = "orders in which only the layers outside saw the early answer of";
    lab.check_eq(format!("{words} auth"), orders, auth);
    lab.check_eq(format!("{words} cors"), orders, cors);
    Ok(())
}
