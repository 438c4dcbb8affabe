//! How many get through when several processes are hammered at once?

use anyhow::Context;
use lab::{Experiment, Lab, child::ChildBuilder};

use super::client::{Tally, hammer, in_redis};
use crate::algorithm::Algorithm;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Requests that one client may send in a year
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    limit: u64,
    /// Processes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=16))]
    processes: u64,
    /// Connections over which that client hammers
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(2..=256))]
    connections: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "distributed",
        "Several processes on one Redis, hammered, let through exactly the limit together, whatever the \
         algorithm; with limiters in memory as many times the limit as there are processes",
        &["--limit", "60", "--connections", "16"],
        run,
    )
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let keys = lab.keys().await?;
    let mut rows = Vec::new();
    for (done, algorithm) in (0..).zip(Algorithm::ALL) {
        lab.progress(done, 6, format!("{} on one Redis", algorithm.name()));
        let serve = || in_redis(&lab, &keys, "together").args(&["--algorithm", algorithm.name()]);
        let tally = hammered(&params, serve).await?;
        rows.push(row(&format!("{}, one Redis", algorithm.name()), tally));
        lab.check_eq(
            format!(
                "{}: let through by {} processes on one Redis",
                algorithm.name(),
                params.processes
            ),
            params.limit,
            tally.passed,
        );
        lab.check_eq(
            format!("{}: answered with neither 200 nor 429", algorithm.name()),
            0,
            tally.other,
        );
    }
    lab.progress(5, 6, "each in its own memory");
    let tally = hammered(&params, || lab.serve().args(&["--store", "memory"])).await?;
    rows.push(row("token-bucket, each in its own memory", tally));
    lab.check_eq(
        format!("let through by {} processes that count alone", params.processes),
        params.processes * params.limit,
        tally.passed,
    );
    lab.table("One client against all processes", &["limiter", "let through", "refused"], rows);
    Ok(())
}

fn row(name: &str, tally: Tally) -> Vec<String> {
    vec![name.to_owned(), tally.passed.to_string(), tally.refused.to_string()]
}

/// Starts the processes and sends twice as much as all of them together would let through.
async fn hammered(params: &Params, serve: impl Fn() -> ChildBuilder) -> anyhow::Result<Tally> {
    let limit = params.limit.to_string();
    let mut children = Vec::new();
    for _ in 0..params.processes {
        // A year: even of 10,000 none flows back for 50 minutes, however long this machine takes.
        children.push(serve().args(&["--limit", &limit, "--window", "366d"]).start().await?);
    }
    let requests = 2 * params.processes * params.limit;
    hammer(&children, params.connections.max(params.processes), requests).await.context("hammering")
}
