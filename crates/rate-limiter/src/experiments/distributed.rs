//! How many get through when several processes are hammered at once?

use std::{
    slice,
    time::{Duration, Instant},
};

use anyhow::Context;
use lab::{
    Experiment, Lab, Sabotage,
    child::{Child, ChildBuilder},
    load::http::Connection,
};
use tokio::{task::JoinSet, time::sleep};

use super::fixture::{Fixture, Tally, in_memory, request};
use crate::algorithm::Algorithm;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Requests that one client may send in a year
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    limit: u64,
    /// Processes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=16))]
    processes: u64,
    /// Units that a process takes from Redis at once, where it takes leases
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=100))]
    lease: u64,
    /// Connections over which that client sends
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(2..=256))]
    connections: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "distributed",
        "Several processes on one Redis, hammered, let through exactly the limit together, whatever the \
         algorithm; with leases never more, and fewer by no more than the processes hold; with limiters in memory as \
         many times the limit as there are processes",
        &["--limit", "100", "--connections", "16"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/shared.rs",
        replace: r#"format!("{prefix}{{{key}}}:{algorithm}:{policy}")"#,
        with: r#"format!("{prefix}{{{key}}}:{}:{algorithm}:{policy}", std::process::id())"#,
        check: "token-bucket: let through by 4 processes on one Redis",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut rows = Vec::new();
    for (done, algorithm) in (0..).zip(Algorithm::ALL) {
        lab.progress(done, 7, format!("{} on one Redis", algorithm.name()));
        let serve = || fixture.in_redis().args(&["--algorithm", algorithm.name()]);
        let tally = hammered(&params, serve).await?;
        rows.push(tally.row(&format!("{}, one Redis", algorithm.name())));
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
    lab.progress(5, 7, "one Redis, with leases");
    let lease = params.lease.to_string();
    let apart = Fixture::of(&lab).await?;
    let tally = hammered(&params, || apart.in_redis().args(&["--lease", &lease])).await?;
    rows.push(tally.row("token-bucket, one Redis, leases"));
    // The most that the processes hold when everything is taken.
    let held = params.processes * (params.lease - 1);
    lab.check(
        "with leases: let through by all processes together",
        format!("from {} to {}", params.limit.saturating_sub(held), params.limit),
        tally.passed,
        tally.passed <= params.limit && tally.passed + held >= params.limit,
    );
    let held = one_by_one(&params, &Fixture::of(&lab).await?).await?;
    lab.check(
        "with leases: held by a process that was asked for one unit",
        format!("{}", params.lease - 1),
        held,
        held == params.lease - 1,
    );
    let (passed, most) = after_a_pause(&params, &Fixture::of(&lab).await?).await?;
    lab.check(
        "with leases: let through after a pause, by a process that holds its lease and another",
        format!("at most {most:.1}"),
        passed,
        passed as f64 <= most,
    );
    lab.progress(6, 7, "each in its own memory");
    let tally = hammered(&params, in_memory).await?;
    rows.push(tally.row("token-bucket, each in its own memory"));
    lab.check_eq(
        format!("let through by {} processes that count alone", params.processes),
        params.processes * params.limit,
        tally.passed,
    );
    lab.table("One client against all processes", &["limiter", "let through", "refused"], rows);
    Ok(())
}

/// Takes a unit from one process, and then all that another one gives. What is missing is held by the first one.
async fn one_by_one(params: &Params, fixture: &Fixture) -> anyhow::Result<u64> {
    let (limit, lease) = (params.limit.to_string(), params.lease.to_string());
    let serve = |lease: &str| {
        let serve = fixture.in_redis().args(&["--lease", lease, "--limit", &limit]);
        serve.args(&["--window", "366d"])
    };
    let (first, second) = (serve(&lease).start().await?, serve("1").start().await?);
    let one = hammer(slice::from_ref(&first), 1, 1).await?;
    let others = hammer(slice::from_ref(&second), 1, 2 * params.limit).await?;
    Ok(params.limit.saturating_sub(one.passed + others.passed))
}

/// A process takes a lease and keeps it while the bucket fills up again. Then both give all that they have: the quota,
/// what flows in meanwhile, and what was held. Returns how many units that were, and how many they may be.
async fn after_a_pause(params: &Params, fixture: &Fixture) -> anyhow::Result<(u64, f64)> {
    // In a second as many units flow in as a lease has. Then the bucket is full without the lease, which is given up.
    let (limit, lease) = (2 * params.lease, params.lease.to_string());
    let serve = |lease: &str| {
        let serve = fixture.in_redis().args(&["--lease", lease, "--limit", &limit.to_string()]);
        serve.args(&["--window", "2s"])
    };
    let (first, second) = (serve(&lease).start().await?, serve("1").start().await?);
    hammer(slice::from_ref(&first), 1, 1).await?;
    sleep(Duration::from_millis(800)).await;
    let begun = Instant::now();
    let others = hammer(slice::from_ref(&second), 1, 2 * limit).await?;
    let held = hammer(slice::from_ref(&first), 1, 2 * limit).await?;
    let flows_in = params.lease as f64 * begun.elapsed().as_secs_f64();
    Ok((others.passed + held.passed, (limit + params.lease - 1) as f64 + flows_in))
}

/// Starts the processes and sends twice as much as all of them together would let through.
async fn hammered(params: &Params, serve: impl Fn() -> ChildBuilder) -> anyhow::Result<Tally> {
    let limit = params.limit.to_string();
    let mut children = Vec::new();
    for _ in 0..params.processes {
        // In a year: even of 10,000 units none flows back for 50 minutes, however slow this machine is.
        children.push(serve().args(&["--limit", &limit, "--window", "366d"]).start().await?);
    }
    let requests = 2 * params.processes * params.limit;
    hammer(&children, params.connections.max(params.processes), requests).await.context("hammering")
}

/// Each of the clients sends one request after another, the first to the first child and so on.
async fn hammer(children: &[Child], clients: u64, requests: u64) -> anyhow::Result<Tally> {
    let mut hammering = JoinSet::new();
    for n in 0..clients {
        let child = &children[usize::try_from(n)? % children.len()];
        let (host, request) = (child.address().to_owned(), request(child, &[]));
        let requests = requests / clients + u64::from(n < requests % clients);
        hammering.spawn(async move {
            let mut tally = Tally::default();
            let mut connection = Connection::open(&host).await?;
            for _ in 0..requests {
                tally.add(connection.send(&request).await?);
            }
            anyhow::Ok(tally)
        });
    }
    let mut all = Tally::default();
    for tally in hammering.join_all().await {
        let tally = tally?;
        all.passed += tally.passed;
        all.refused += tally.refused;
        all.other += tally.other;
    }
    Ok(all)
}
