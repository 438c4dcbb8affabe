//! "Explain the CAP theorem and its trade-offs."
//!
//! While a network is cut, a node that cannot reach the others either answers, and may be wrong, or refuses, and is not
//! available. Nobody chooses whether networks are cut. The choice is made per operation: here each request says how many
//! nodes must answer, and each key whether concurrent writes are kept, lost by a clock, or ordered by a majority.
//!
//! In reading order: the naive version ([`whiteboard`]); which write is newer ([`version`], [`clock`]), what needs no order
//! ([`crdt`]), what a node keeps ([`record`]), what a client may say that it has read ([`context`]); what survives a kill
//! ([`log`], [`replica`]); how nodes ask each other ([`peers`]) and how many have to answer ([`coordinator`]); what happened,
//! and what a client notices ([`history`]), whether it is linearizable ([`checker`]), and how it looks ([`draw`]); and how a
//! node speaks HTTP ([`error`], [`api`]).

pub mod whiteboard;
pub mod version;
pub mod clock;
pub mod crdt;
pub mod record;
pub mod context;
pub mod log;
pub mod replica;
pub mod peers;
pub mod coordinator;
pub mod history;
pub mod checker;
pub mod draw;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{
    collections::BTreeMap, fs, io, os::unix::fs::OpenOptionsExt, path::Path, path::PathBuf,
    sync::Arc, time::Duration,
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use lab::{Answer, Serve, Serving, child::Child, port};
use tokio_util::task::TaskTracker;
use url::Url;

use crate::{
    api::Node, clock::Clock, context::Signer, coordinator::Coordinator, log::Owner, peers::Peers,
    replica::Replica,
};

const NAME: &str = "cap-theorem";

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Serves only this node of a cluster. Without it, this process is node 0 and starts the other nodes
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    node: Option<u8>,
    /// Where another node of the cluster is: 1=http://host:port
    #[arg(long = "peer", value_name = "N=URL", value_parser = numbered)]
    peers: Vec<(u8, Url)>,
    /// How many nodes there are, if this process starts them. Each size needs a home of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// The folder in which each node has its own
    #[arg(long)]
    home: Option<PathBuf>,
    /// How long another node may take to answer
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    peer_timeout_ms: u64,
    /// How far the clock that this node is given is ahead of the machine's
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    clock_ahead_ms: i64,
    /// Gives it a hybrid logical clock, which is never behind a time that it has seen of the key
    #[arg(long)]
    hybrid_clock: bool,
    /// What the nodes show each other. Without it, one is made and kept in the home
    #[arg(long, env = "CAP_CLUSTER_KEY", hide_env_values = true)]
    cluster_key: Option<String>,
}

/// `1=http://…`
fn numbered(text: &str) -> Result<(u8, Url), String> {
    let (number, url) = text.split_once('=').unwrap_or_default();
    let peer = number.parse().ok().filter(|number| *number < 5).zip(url.parse().ok());
    peer.ok_or_else(|| "must be as 1=http://host:port".to_owned())
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: NAME,
        question: "Explain the CAP theorem and its trade-offs",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[],
        migrations: None,
        try_it: &[
            "curl -s {url}/cluster",
            r#"curl -s -X PUT '{url}/keys/tea?w=quorum' -H 'content-type: application/json' -d '{"value":"green"}'"#,
            "curl -s '{url}/keys/tea?r=quorum'",
            "curl -s {url}/keys/tea/versions",
            r#"curl -s -X PUT '{url}/keys/tea?kind=atomic' -H 'content-type: application/json' -d '{"value":"black"}'"#,
            "curl -s '{url}/keys/tea?kind=atomic'",
            "curl -s {url}/history.svg",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let home = options.home.clone().unwrap_or_else(home);
    fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
    let key = match options.cluster_key.clone().filter(|key| !key.is_empty()) {
        Some(key) => key,
        None => kept_key(&home)?,
    };
    let Some(number) = options.node else {
        return serve_all(&options, &home, &key, serving).await;
    };
    let (router, node) = start_node(&options, number, options.peers.clone(), &home, &key)?;
    serving.run(router).await?;
    stop(&node).await;
    Ok(())
}

/// Serves node 0, and each other node in a process of its own. They end when this process ends.
async fn serve_all(
    options: &Options,
    home: &Path,
    key: &str,
    serving: Serving,
) -> anyhow::Result<()> {
    let mut urls = vec![serving.url().clone()];
    for _ in 1..options.nodes {
        urls.push(Url::parse(&format!("http://127.0.0.1:{}/", port::free()?))?);
    }
    let others = |number: u8| {
        let all = (0..).zip(&urls).filter(move |(other, _)| *other != number);
        all.map(|(other, url)| (other, url.clone())).collect::<Vec<_>>()
    };
    let start = |number: u8| {
        let port = urls[usize::from(number)].port().unwrap_or_default();
        let child = Child::serve(NAME)
            .args(&["--port", &port.to_string(), "--node", &number.to_string()])
            .args(&["--peer-timeout-ms", &options.peer_timeout_ms.to_string()])
            .arg("--home")
            .arg(home)
            .env("CAP_CLUSTER_KEY", key);
        let child = if options.hybrid_clock { child.arg("--hybrid-clock") } else { child };
        let peers = others(number).into_iter();
        peers.fold(child, |it, (other, url)| it.arg("--peer").arg(format!("{other}={url}"))).start()
    };
    let children = try_join_all((1..options.nodes).map(start)).await?;
    let (router, node) = start_node(options, 0, others(0), home, key)?;
    serving.run(router).await?;
    stop(&node).await;
    for mut child in children {
        child.stop().await?;
    }
    Ok(())
}

/// One node, with its log below this home.
fn start_node(
    options: &Options,
    number: u8,
    peers: Vec<(u8, Url)>,
    home: &Path,
    cluster_key: &str,
) -> anyhow::Result<(axum::Router, Node)> {
    let clock = Clock::new(options.clock_ahead_ms, options.hybrid_clock);
    let patience = Duration::from_millis(options.peer_timeout_ms);
    // The name must not tell the key. Whoever knows the key can still see that the names agree.
    let cluster = format!("{:08x}", crc32fast::hash(cluster_key.as_bytes()));
    let folder = home.join(format!("node-{number}"));
    let peers: BTreeMap<_, _> = peers.into_iter().filter(|(other, _)| *other != number).collect();
    let owner = Owner { cluster, node: number, nodes: peers.len() + 1 };
    let replica = Replica::open(&folder, &owner, clock)
        .with_context(|| format!("node {number} cannot use {}", folder.display()))?;
    let peers = Peers::new(peers, cluster_key, patience)?;
    let coordinator = Coordinator { replica: Arc::new(replica), peers, tasks: TaskTracker::new() };
    let node = Node { coordinator, signer: Signer::new(cluster_key), history: Arc::default() };
    // An atomic operation asks twice.
    let longest = 2 * patience + Duration::from_secs(2);
    Ok((api::router(node.clone(), cluster_key, longest), node))
}

/// Waits for late calls and repairs. Each ends within the time that a peer may take.
async fn stop(node: &Node) {
    node.coordinator.tasks.close();
    node.coordinator.tasks.wait().await;
}

/// The key of the cluster whose data is in this home.
fn kept_key(home: &Path) -> anyhow::Result<String> {
    let path = home.join("cluster-key");
    let new = format!("{:032x}", rand::random::<u128>());
    // Whoever can read it can act as a node.
    let mut options = fs::File::options();
    let created = options.write(true).create_new(true).mode(0o600).open(&path);
    let written = created.and_then(|mut it| io::Write::write_all(&mut it, new.as_bytes()));
    match written {
        Ok(()) => Ok(new),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let kept = fs::read_to_string(&path)?;
            // Without a key, everybody would be a node of the cluster.
            ensure!(!kept.is_empty(), "{} is empty: remove it", path.display());
            Ok(kept)
        }
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Unless told otherwise, below the workspace's `target`: each checkout has a cluster of its own.
fn home() -> PathBuf {
    lab::stack::workspace().join("target").join(NAME)
}

/// The whiteboard version finds its peers in the environment: it has no options.
async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let peers = std::env::var("CAP_PEERS").unwrap_or_default();
    let peers = peers.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
    serving.run(whiteboard::router(peers)).await
}
