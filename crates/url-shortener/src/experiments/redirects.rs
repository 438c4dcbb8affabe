//! What does a hot redirect cost, beside an axum handler that does nothing?

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{
        self, Outcome, Stop,
        http::{Connection, Pool},
    },
    serve,
};

use super::fixture::Fixture;
use crate::{
    api,
    service::{Options, Service},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Connections, each of which asks without a pause
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    connections: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Measurements of each of the two, taken in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Requests a second while latencies are measured
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    rate: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "redirects",
        "A hot redirect costs little more than an axum handler that does nothing",
        &["--rounds", "2", "--seconds", "0.3", "--connections", "8"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/clicks.rs",
        replace: "*sums.entry(visit).or_default() += clicks;",
        with: "sums.entry(visit).or_insert(clicks);",
        check: "clicks counted",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let options = Options {
        shards: vec![fixture.database().url().to_owned()],
        reshard: false,
        creates_per_second: std::num::NonZeroU32::MAX,
        trusted_proxies: Vec::new(),
        public_url: None,
    };
    let service = Service::start(options, "http://sho.rt".parse()?).await?;
    let ours = serve::here(api::router(Arc::clone(&service))).await?;
    let nothing = serve::here(Router::new().route("/{code}", get(async || ()))).await?;

    let mut connection = Connection::open(&ours.host).await?;
    let create = connection.post("/links", r#"{"url":"https://example.com/","alias":"hot"}"#);
    anyhow::ensure!(connection.send(&create).await? == 201, "the link could not be made");

    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    let (mut rows, mut clicks, mut failed) = (Vec::new(), 1, 0);
    let follow = connection.get("/hot");
    connection.send(&follow).await?;
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "measured in turn");
        let bare = measure(&nothing.host, &params, 200).await?;
        let redirect = measure(&ours.host, &params, 302).await?;
        ratios.push(redirect.throughput() / bare.throughput());
        rates.push(redirect.throughput());
        clicks += redirect.ok;
        failed += bare.failed + redirect.failed;
        for (name, outcome) in [("does nothing", bare), ("redirect", redirect)] {
            rows.push([vec![name.to_owned()], outcome.cells()].concat());
        }
    }
    let columns = [&["handler"][..], &Outcome::COLUMNS].concat();
    lab.table("Each measurement", &columns, rows);
    let target = Target::AtLeast(0.85);
    lab.figure_with_target(
        "throughput of a redirect ÷ that of doing nothing, median",
        load::median(ratios),
        "",
        target,
    );
    lab.figure("redirects a second, median", load::median(rates), "/s");
    let mut rows = Vec::new();
    for (name, host, expected) in
        [("doing nothing", &nothing.host, 200), ("a redirect", &ours.host, 302)]
    {
        let timed = at_a_rate(host, &params, expected).await?;
        let rate = params.rate;
        lab.figure(format!("p50 of {name}, {rate} a second"), timed.percentile(50.0), "ms");
        lab.figure(format!("p99 of {name}, {rate} a second"), timed.percentile(99.0), "ms");
        failed += timed.failed;
        clicks += if expected == 302 { timed.ok } else { 0 };
        rows.push([vec![name.to_owned()], timed.open_cells()].concat());
    }
    let columns = [&["handler"][..], &Outcome::OPEN_COLUMNS].concat();
    lab.table("At a steady rate, whether or not the server keeps up", &columns, rows);

    // What was measured has to be the whole work: every answer a redirect, every click counted.
    lab.check_eq("requests that were not answered as they should", 0, failed);
    let ready: serde_json::Value =
        reqwest::get(format!("http://{}/readyz", ours.host)).await?.json().await?;
    let dropped = ready["dropped_clicks"].as_u64().unwrap_or(u64::MAX);
    service.stop().await;
    let pool = fixture.database().pool().await?;
    let counted: i64 = sqlx::query_scalar("select coalesce(sum(clicks), 0)::bigint from clicks")
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    lab.check_eq("clicks dropped", 0, dropped);
    lab.check_eq("clicks counted", clicks, counted.unsigned_abs());
    Ok(())
}

/// At a rate far below what the server can do: what a client waits for then is the work itself, and no queue.
async fn at_a_rate(host: &str, params: &Params, expected: u16) -> anyhow::Result<Outcome> {
    let pool = Arc::new(Pool::of(host));
    let time = Duration::from_secs_f64(params.seconds);
    load::open(params.rate.into(), time, 1_000, |_| {
        let pool = Arc::clone(&pool);
        async move {
            let status = pool.get("/hot").await?;
            anyhow::ensure!(status == expected, "{status}");
            Ok(())
        }
    })
    .await
}

async fn measure(host: &str, params: &Params, expected: u16) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..params.connections {
        let connection = Connection::open(host).await?;
        let request = connection.get("/hot");
        clients.push((connection, request, expected));
    }
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    load::closed(clients, stop, |(connection, request, expected)| {
        Box::pin(async move {
            let status = connection.send(request).await?;
            anyhow::ensure!(status == *expected, "{status}");
            Ok(())
        })
    })
    .await
}
