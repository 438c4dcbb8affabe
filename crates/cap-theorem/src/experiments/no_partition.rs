//! What has to be given up while the network works? Nothing but time: a strong answer waits for other nodes.

use std::time::{Duration, Instant};

use anyhow::Context;
use conform::target::within;
use lab::{Experiment, Lab, Sabotage, fault::Fault, load::median};
use tokio::task::JoinSet;

use super::{fixture::Cluster, recording::Recording};
use crate::{cases::client::Client, checker::check, history::count};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Operations of each of three clients, on one key
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=2_000))]
    operations: u64,
    /// Milliseconds between two nodes, in each direction. A fifth of it and none are tried too
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..=1_000))]
    delay_ms: u64,
    /// Requests of each kind that are timed with each delay
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    samples: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "no-partition",
        "Without a cut nothing is given up: every request on an atomic register is answered, and the history is \
         linearizable. The price is time: one round trip for a quorum, two for an atomic write",
        &["--operations", "20", "--delay-ms", "10", "--samples", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/coordinator.rs",
        replace: "Level::One => return Ok(self.replica.get(slot)),\n            Level::Quorum | Level::All",
        with: "Level::One | Level::Quorum | Level::All",
        check: "messages between nodes for a read with r=1, and then one with r=all",
    })
}

/// What is timed, and how many round trips between nodes its client waits for.
const REQUESTS: [(&str, &str, u32); 6] = [
    ("GET", "r=1&kind=lww", 0),
    ("PUT", "w=1&kind=lww", 0),
    ("GET", "r=quorum&kind=lww", 1),
    ("PUT", "w=quorum&kind=lww", 1),
    ("GET", "kind=atomic", 1),
    ("PUT", "kind=atomic", 2),
];

/// How long messages that are expected may take.
const PATIENCE: Duration = Duration::from_secs(5);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    messages(&lab).await?;
    consistent_and_available(&params, &lab).await?;
    latency(&params, &lab).await
}

/// Counts what the nodes send each other for one request. A new cluster sends nothing by itself.
async fn messages(lab: &Lab) -> anyhow::Result<()> {
    let cluster = Cluster::three().await?;
    let client = &cluster.clients[0];
    client.write("key", "kind=atomic", "first", None).await?;
    settled(&cluster, 4, PATIENCE).await;
    let mut written = "first";
    for (what, query, expected) in [
        ("an atomic write", "kind=atomic", 4),
        ("an atomic read of what all nodes have", "kind=atomic", 2),
        ("a write with w=all", "w=all&kind=lww", 2),
        ("a read with r=1, and then one with r=all", "r=1&kind=lww", 2),
    ] {
        // A node that lags would be written to once more.
        if query == "kind=atomic" {
            cluster.everywhere("key", "atomic", written).await;
        }
        let before = cluster.messages();
        if what.contains("write") {
            client.write("key", query, what, None).await?;
            written = what;
        } else {
            client.read("key", query).await?;
        }
        if query.starts_with("r=1") {
            client.read("key", "r=all&kind=lww").await?;
        }
        settled(&cluster, before + expected, PATIENCE).await;
        // One too many may come a little later.
        settled(&cluster, before + expected + 1, Duration::from_millis(200)).await;
        let seen = cluster.messages() - before;
        lab.check_eq(format!("messages between nodes for {what}"), expected, seen);
    }
    Ok(())
}

/// Waits until this many messages were sent, or for as long as this.
async fn settled(cluster: &Cluster, messages: u64, patience: Duration) {
    let sent = async || Ok((cluster.messages() >= messages).then_some(()));
    let _ = within(patience, "the messages are sent", sent).await;
}

/// Three clients on three nodes read and write one atomic register.
async fn consistent_and_available(params: &Params, lab: &Lab) -> anyhow::Result<()> {
    lab.progress(1, 3, "three clients use one register");
    let cluster = Cluster::three().await?;
    let recording = Recording::default();
    let mut clients = JoinSet::new();
    for (number, node) in (0_u32..).zip(cluster.clients.clone()) {
        let (recording, operations) = (recording.clone(), params.operations);
        clients.spawn(async move {
            let mut refused = 0;
            for n in 0..operations {
                let seen = if n % 2 == 0 {
                    let value = format!("{n} of {number}");
                    recording.write(number, &node, "key", "kind=atomic", &value).await?
                } else {
                    recording.read(number, &node, "key", "kind=atomic").await?
                };
                refused += u64::from(seen.status != 200);
            }
            anyhow::Ok(refused)
        });
    }
    let mut refused = 0;
    while let Some(ended) = clients.join_next().await {
        refused += ended.context("a client panicked")??;
    }
    let history = recording.history();
    lab.check_eq("atomic: requests that were refused", 0, refused);
    let verdict = if check(&history).is_ok() { "linearizable" } else { "not linearizable" };
    lab.check_eq("atomic: the history", "linearizable", verdict);
    let stale = count(&history).stale_reads;
    lab.check_eq("atomic: stale reads", 0, stale);
    Ok(())
}

/// The price, with the nodes at several distances.
async fn latency(params: &Params, lab: &Lab) -> anyhow::Result<()> {
    let cluster = Cluster::three().await?;
    let client = &cluster.clients[0];
    // The first request of each kind opens connections.
    for (method, query, _) in REQUESTS {
        timed(client, method, query).await?;
    }
    let mut rows = Vec::new();
    for delay in [0, params.delay_ms / 5, params.delay_ms] {
        lab.progress(2, 3, format!("{delay} ms between nodes"));
        cluster.set_all(Fault::Delay(Duration::from_millis(delay)));
        for (method, query, round_trips) in REQUESTS {
            let mut times = Vec::new();
            for _ in 0..params.samples {
                times.push(timed(client, method, query).await?);
            }
            let time = median(times);
            let name = format!("{method} {query}");
            let cells = [delay.to_string(), round_trips.to_string(), format!("{time:.1}")];
            rows.push([vec![name.clone()], cells.to_vec()].concat());
            lab.figure(format!("{name}: with {delay} ms between nodes, median"), time, "ms");
            let axes = ("milliseconds between nodes", "milliseconds for a request");
            lab.point("What an answer costs", axes, &name, (delay as f64, time));
        }
    }
    let columns = ["request", "ms between nodes", "round trips it waits for", "median, ms"];
    lab.table("What an answer costs", &columns, rows);
    Ok(())
}

/// How many milliseconds a request takes.
async fn timed(client: &Client, method: &str, query: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    if method == "PUT" {
        client.write("timed", query, "v", None).await?;
    } else {
        client.read("timed", query).await?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
