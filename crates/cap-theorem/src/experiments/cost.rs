//! What does each level cost? Writes and reads per second, beside etcd, Redis and the bare log.
//!
//! Each write is flushed to the disk, for a power cut. No check here shows that: what the kernel has got survives a kill
//! without a flush.
//!
//! The nodes of etcd call each other through our proxies, and its clients use its HTTP gateway. So its figures say what
//! it reaches at least, and are no comparison.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use lab::{
    Experiment, Lab, Need, Sabotage, Service, Target,
    group::{EtcdGroup, ServerGroup, etcd::Read},
    load::{self, Outcome, Stop, median},
};
use redis::{AsyncCommands, aio::MultiplexedConnection};
use serde_json::json;

use super::fixture::Cluster;
use crate::cases::client::Client;
use crate::log::{Log, Owner};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: u64,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.3, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Rounds, in each of which all are measured in turns, there and back
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "What w=1 acknowledges survives a kill of the node that took it. The figures are the price of each level",
        &["--clients", "4", "--seconds", "0.1", "--rounds", "1"],
        run,
    )
    .needs(&[Need::Group(EtcdGroup::GROUP), Need::Shared(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/replica.rs",
        replace: "Ok(log.append(&serde_json::to_vec(&entries).map_err(std::io::Error::from)?)?)",
        with: "let _ = (log, serde_json::to_vec(&entries).map_err(std::io::Error::from)?); Ok(())",
        check: "writes with w=1 that are there after a kill, of those looked for",
    })
}

/// What is measured: a name, and whether it writes.
const WAYS: [(&str, Way, bool); 11] = [
    ("the bare log: append", Way::Log, true),
    ("ours: PUT w=1", Way::Ours("w=1&kind=lww"), true),
    ("ours: PUT w=quorum", Way::Ours("w=quorum&kind=lww"), true),
    ("ours: PUT kind=atomic", Way::Ours("kind=atomic"), true),
    ("etcd, through proxies: put", Way::Etcd(Read::Linearizable), true),
    ("Redis: SET", Way::Redis, true),
    ("ours: GET r=1", Way::Ours("r=1&kind=lww"), false),
    ("ours: GET r=quorum", Way::Ours("r=quorum&kind=lww"), false),
    ("ours: GET kind=atomic", Way::Ours("kind=atomic"), false),
    ("etcd, through proxies: get, linearizable", Way::Etcd(Read::Linearizable), false),
    ("Redis: GET", Way::Redis, false),
];

/// Which store, and how it is asked.
#[derive(Clone, Copy)]
enum Way {
    Log,
    Ours(&'static str),
    Etcd(Read),
    Redis,
}

/// The stores.
struct Stores {
    cluster: Cluster,
    etcd: Arc<EtcdGroup>,
    leader: usize,
    redis: MultiplexedConnection,
    prefix: String,
    /// The keys of acknowledged writes with w=1.
    acknowledged: Arc<Mutex<Vec<String>>>,
}

/// One client of one store.
struct Asker {
    store: Store,
    writes: bool,
    number: u64,
    asked: u64,
    /// Makes the keys of one measurement other ones than those of the next.
    tag: u32,
}

enum Store {
    Ours(Client, &'static str, Option<Arc<Mutex<Vec<String>>>>),
    Etcd(Arc<EtcdGroup>, usize, Read),
    Redis(MultiplexedConnection, String),
}

/// How many keys are looked for after the kill.
const LOOKED_FOR: usize = 200;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let keys = lab.keys().await?;
    let etcd = Arc::new(lab.group::<EtcdGroup>().await?);
    let leader = etcd.leader().await.unwrap_or_default();
    let redis = keys.connection().await?;
    let prefix = keys.prefix().to_owned();
    let cluster = Cluster::without_proxies().await?;
    let acknowledged = Arc::default();
    let mut stores = Stores { cluster, etcd, leader, redis, prefix, acknowledged };
    // Opens connections.
    for way in &WAYS {
        measure(&stores, way, params.clients, 0.02).await?;
    }
    let mut rates = [const { Vec::new() }; WAYS.len()];
    let mut failed = 0;
    for round in 0..params.rounds {
        lab.progress(round, params.rounds, "measured in turns");
        // There and back, so that what gets slower with time harms all alike.
        for at in (0..WAYS.len()).chain((0..WAYS.len()).rev()) {
            let (rate, failures) =
                measure(&stores, &WAYS[at], params.clients, params.seconds).await?;
            rates[at].push(rate);
            failed += failures;
        }
    }
    let medians = rates.map(median);
    for ((name, ..), rate) in WAYS.iter().zip(medians) {
        lab.figure(format!("{name}, median"), rate, "/s");
    }
    let name = "ours: PUT w=1 ÷ the bare log, medians";
    lab.figure_with_target(name, medians[1] / medians[0], "", Target::AtLeast(0.5));
    lab.check_eq("requests that failed", 0, failed);
    survive(&lab, &mut stores).await
}

/// Kills the node that took the writes, and looks for the last of them.
async fn survive(lab: &Lab, stores: &mut Stores) -> anyhow::Result<()> {
    let acknowledged = stores.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let looked_for = &acknowledged[acknowledged.len().saturating_sub(LOOKED_FOR)..];
    ensure!(!looked_for.is_empty(), "no write with w=1 was acknowledged");
    stores.cluster.nodes[0].kill().await?;
    stores.cluster.nodes[0].restart().await?;
    let mut found = 0;
    for key in looked_for {
        let (values, _) = stores.cluster.clients[0].read(key, "r=1&kind=lww").await?;
        found += usize::from(values == ["v"]);
    }
    let name = "writes with w=1 that are there after a kill, of those looked for";
    lab.check_eq(name, looked_for.len(), found);
    Ok(())
}

/// Requests per second, and how many failed.
async fn measure(
    stores: &Stores,
    (_, way, writes): &(&str, Way, bool),
    clients: u64,
    seconds: f64,
) -> anyhow::Result<(f64, u64)> {
    let time = Duration::from_secs_f64(seconds);
    let store = || match *way {
        Way::Log => None,
        Way::Ours(query) => {
            // A kill of node 0 takes nothing of it: the keys are all its own.
            let remembers = (query == "w=1&kind=lww").then(|| stores.acknowledged.clone());
            Some(Store::Ours(stores.cluster.clients[0].clone(), query, remembers))
        }
        Way::Etcd(read) => Some(Store::Etcd(stores.etcd.clone(), stores.leader, read)),
        Way::Redis => Some(Store::Redis(stores.redis.clone(), stores.prefix.clone())),
    };
    let (mut askers, tag) = (Vec::new(), rand::random());
    for number in 0..clients {
        let Some(store) = store() else { return log(time).await };
        askers.push(Asker { store, writes: *writes, number, asked: 0, tag });
    }
    let outcome: Outcome =
        load::closed(askers, Stop::After(time), |asker| Box::pin(ask(asker))).await?;
    Ok((outcome.throughput(), outcome.failed))
}

/// Writes or reads the next of a hundred keys of this client.
async fn ask(asker: &mut Asker) -> anyhow::Result<()> {
    let key = match &asker.store {
        // These are looked for after the kill, so no other write may have made them.
        Store::Ours(_, _, Some(_)) => {
            format!("{:08x}-{}-{}", asker.tag, asker.number, asker.asked)
        }
        _ => format!("{}-{}", asker.number, asker.asked % 100),
    };
    asker.asked += 1;
    match &mut asker.store {
        Store::Ours(client, query, remembers) if asker.writes => {
            let answer = client.put(&key, query, &json!({ "value": "v" })).await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            if let Some(acknowledged) = remembers {
                acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(key);
            }
        }
        Store::Ours(client, query, _) => {
            let answer = client.get(&key, query).await?;
            ensure!([200, 404].contains(&answer.status().as_u16()), "{}", answer.status());
        }
        Store::Etcd(etcd, node, _) if asker.writes => etcd.put(*node, &key, "v").await?,
        Store::Etcd(etcd, node, read) => drop(etcd.get(*node, &key, *read).await?),
        Store::Redis(redis, prefix) if asker.writes => {
            redis.set::<_, _, ()>(format!("{prefix}{key}"), "v").await?;
        }
        Store::Redis(redis, prefix) => {
            let _: Option<String> = redis.get(format!("{prefix}{key}")).await?;
        }
    }
    Ok(())
}

/// Appends to a log of its own, one record after another, each flushed.
async fn log(time: Duration) -> anyhow::Result<(f64, u64)> {
    let work = move || {
        let folder = tempfile::tempdir()?;
        let owner = Owner { cluster: "of an experiment".to_owned(), node: 0, nodes: 1 };
        let (mut log, _) = Log::open(folder.path(), &owner)?;
        let (begun, mut appended) = (Instant::now(), 0_u32);
        while begun.elapsed() < time {
            // As long as the record of one of these writes.
            log.append(&[b'x'; 110])?;
            appended += 1;
        }
        anyhow::Ok(f64::from(appended) / begun.elapsed().as_secs_f64())
    };
    Ok((tokio::task::spawn_blocking(work).await??, 0))
}
