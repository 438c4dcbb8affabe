//! What does a layer cost? By its kind, in nanoseconds; and ours all together, beside the bare handler.

use std::{
    convert::Infallible,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::ensure;
use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
    routing::get,
};
use edge::frame::alive;
use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{self, Outcome, Stop, http::Connection},
    serve::{Here, here},
};
use tower::{Service, ServiceExt, service_fn};

use super::{compare::noop, fixture::Fixture};
use crate::layer::Inner;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Calls of each kind of layer, without a network
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    calls: u32,
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Rounds, in each of which all are measured in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "A layer that does nothing adds less than a microsecond, whatever its kind. Ten of them leave most of a bare handler's rate",
        &["--calls", "2000", "--clients", "4", "--seconds", "0.1", "--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/limits.rs",
        replace: "Quota::per_minute(a_minute)",
        with: "Quota::per_minute(NonZeroU32::MIN.min(a_minute))",
        check: "requests that failed",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    kinds(params, &lab).await?;
    let fixture = Fixture::of(&lab).await?;
    let handler = || Router::new().route("/healthz", get(alive));
    // A compiler sees through those that are written by hand, so the ten are functions with `next`.
    let [(_, none), .., (_, ten)] = noop::kinds(handler());
    let served = |service: Inner| here(Router::new().fallback_service(service));
    let rate = u32::MAX.to_string();
    let ours = here(fixture.router(&["--rate", &rate])?).await?;
    let served = [served(none).await?, served(ten).await?, ours];
    // Within this process, so it writes no line into a log.
    let names = ["the bare handler", "ten functions with next", "our whole stack, without its log"];
    for here in &served {
        ask(here, params.clients, 0.1).await?;
    }
    let (mut rates, mut failed, mut rows) = ([const { Vec::new() }; 3], 0, Vec::new());
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "measured in turns");
        // There and back, so that what gets slower with time harms all alike.
        for who in [0, 1, 2, 2, 1, 0] {
            let outcome = ask(&served[who], params.clients, params.seconds).await?;
            failed += outcome.failed;
            rates[who].push(outcome.throughput());
            rows.push([vec![names[who].to_owned()], outcome.cells()].concat());
        }
    }
    lab.table("Each measurement", &[&["who"][..], &Outcome::COLUMNS].concat(), rows);
    let [bare, ten, ours] = rates.map(load::median);
    lab.figure("the bare handler, median", bare, "requests/s");
    let name = "ten functions with next ÷ the bare handler, medians";
    lab.figure_with_target(name, ten / bare, "", Target::AtLeast(0.9));
    lab.figure("our whole stack, without its log, median", ours, "requests/s");
    lab.figure("our whole stack, without its log ÷ the bare handler, medians", ours / bare, "");
    lab.check_eq("requests that failed", 0, failed);
    Ok(())
}

/// Calls without a network, all kinds in turns.
async fn kinds(params: Params, lab: &Lab) -> anyhow::Result<()> {
    let leaf = service_fn(async |request: Request| {
        Ok::<Response, Infallible>(black_box(request).into_body().into_response())
    });
    let mut kinds = noop::kinds(leaf);
    let mut times = [const { Vec::new() }; 5];
    let batch = (params.calls / 20).max(1);
    for _ in 0..20 {
        for (n, (_, service)) in kinds.iter_mut().enumerate() {
            let begun = Instant::now();
            for _ in 0..batch {
                let request = Request::new(Body::empty());
                black_box(service.ready().await?.call(request).await?);
            }
            times[n].push(begun.elapsed().as_secs_f64() * 1e9 / f64::from(batch));
        }
    }
    let medians = times.map(load::median);
    let mut rows = Vec::new();
    for (n, (name, _)) in kinds.iter().enumerate() {
        let one = (medians[n] - medians[0]) / 10.0;
        rows.push(vec![(*name).to_owned(), format!("{:.0}", medians[n]), format!("{one:.0}")]);
        if n > 0 {
            lab.figure_with_target(
                format!("a layer: {name}"),
                one / 1e3,
                "µs",
                Target::AtMost(1.0),
            );
        }
    }
    lab.table("A call through ten layers", &["kind", "ns", "for each layer"], rows);
    Ok(())
}

struct Asker {
    connection: Connection,
    request: Vec<u8>,
}

async fn ask(here: &Here, clients: u16, seconds: f64) -> anyhow::Result<Outcome> {
    let mut askers = Vec::new();
    for _ in 0..clients {
        let connection = Connection::open(&here.host).await?;
        askers.push(Asker { request: connection.get("/healthz"), connection });
    }
    let stop = Stop::After(Duration::from_secs_f64(seconds));
    load::closed(askers, stop, |asker| {
        Box::pin(async {
            let status = asker.connection.send(&asker.request).await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
    })
    .await
}
