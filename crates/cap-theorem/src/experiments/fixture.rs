//! What do tests, experiments and cases start from? A cluster of processes, most with a proxy on each link in each direction.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use conform::target::within;
use futures_util::future::try_join_all;
use lab::{
    child::{Child, ChildBuilder},
    fault::{Fault, Proxy},
    port,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{NAME, cases::client::Client};

/// Longer than a busy machine needs for a call, and shorter than a client of an experiment waits: nobody is taken for
/// unreachable because it is slow.
const PEER_TIMEOUT_MS: &str = "15000";
const PATIENCE: Duration = Duration::from_secs(20);

/// Nodes of one cluster. Unless it was made without proxies, the call of one node to another goes through the proxy of this
/// pair.
#[derive(Debug)]
pub struct Cluster {
    /// The processes.
    pub nodes: Vec<Child>,
    /// A client for each of them.
    pub clients: Vec<Client>,
    links: BTreeMap<(usize, usize), Proxy>,
    /// Removed last.
    home: TempDir,
}

impl Cluster {
    /// Three nodes.
    pub async fn three() -> anyhow::Result<Self> {
        Self::start(&[&[], &[], &[]]).await
    }

    /// Three nodes that call each other without a proxy, which would take a part of the processors. `isolate` panics on it.
    pub async fn without_proxies() -> anyhow::Result<Self> {
        Self::start_with(&[&[], &[], &[]], false).await
    }

    /// As many nodes as there are lists of further options, one list for each node.
    pub async fn start(options: &[&[&str]]) -> anyhow::Result<Self> {
        Self::start_with(options, true).await
    }

    async fn start_with(options: &[&[&str]], proxies: bool) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let numbers = 0..options.len();
        let ports: Vec<u16> =
            numbers.clone().map(|_| port::free()).collect::<anyhow::Result<_>>()?;
        let (mut links, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for from in numbers.clone() {
            for to in numbers.clone().filter(|&to| to != from) {
                let mut address = format!("127.0.0.1:{}", ports[to]);
                if proxies {
                    let proxy = Proxy::to(&address).await?;
                    address = proxy.address().to_string();
                    links.insert((from, to), proxy);
                }
                addresses.insert((from, to), format!("http://{address}"));
            }
        }
        let start = |number: usize| {
            let child = Child::serve(NAME)
                .args(&["--port", &ports[number].to_string(), "--node", &number.to_string()])
                .args(&["--peer-timeout-ms", PEER_TIMEOUT_MS])
                .args(options[number])
                .arg("--home")
                .arg(home.path())
                .env("CAP_CLUSTER_KEY", "of an experiment");
            let peers = addresses.iter().filter(|((from, _), _)| *from == number);
            let peers: Vec<_> = peers.map(|((_, to), url)| (to, url.as_str())).collect();
            // The whiteboard version takes its peers from the environment.
            let urls: Vec<_> = peers.iter().map(|(_, url)| *url).collect();
            let child = child.env("CAP_PEERS", urls.join(","));
            let with_peers: ChildBuilder = peers
                .iter()
                .fold(child, |child, (to, url)| child.arg("--peer").arg(format!("{to}={url}")));
            with_peers.start()
        };
        let nodes = try_join_all(numbers.map(start)).await?;
        let clients = nodes.iter().map(|node| Client::at(node.url()));
        let clients = clients.collect::<anyhow::Result<_>>()?;
        Ok(Self { nodes, clients, links, home })
    }

    /// The folder that has the folders of all nodes.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The proxy through which one node calls another.
    pub fn link(&self, from: usize, to: usize) -> anyhow::Result<&Proxy> {
        self.links.get(&(from, to)).context("no such link")
    }

    /// Cuts a node off from all others, in both directions.
    pub fn isolate(&self, node: usize) {
        assert!(!self.links.is_empty(), "a cluster without proxies cannot be cut");
        for ((from, to), proxy) in &self.links {
            if [*from, *to].contains(&node) {
                proxy.set(Fault::Cut);
            }
        }
    }

    /// Sets all links to this.
    pub fn set_all(&self, fault: Fault) {
        self.links.values().for_each(|proxy| proxy.set(fault));
    }

    /// Lets everything through again, and returns when every node has reached every other one. Until then a node may try
    /// a connection that was cut.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.set_all(Fault::None);
        within(PATIENCE, "all nodes reach each other", async || {
            for client in &self.clients {
                let response = client.target.get("cluster").await?;
                // The whiteboard version does not have this call.
                if response.status() == 404 {
                    return Ok(Some(()));
                }
                let body: Value = serde_json::from_str(&response.text().await?)?;
                let others = body["others"].as_array().context("no others")?;
                if !others.iter().all(|other| other["reachable"] == true) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// Waits until every node has this value by itself, and returns whether it came to that. The whiteboard version does not
    /// show what a node has, and counts as if it had it.
    pub async fn everywhere(&self, key: &str, kind: &str, value: &str) -> bool {
        let path = format!("keys/{key}/versions?kind={kind}");
        let everywhere = within(PATIENCE, "all nodes have it", async || {
            for client in &self.clients {
                let response = client.target.get(&path).await?;
                if response.status() == 404 {
                    return Ok(Some(()));
                }
                let body: Value = serde_json::from_str(&response.text().await?)?;
                let versions = body["versions"].as_array().context("no versions")?;
                if !versions.iter().any(|version| version["value"] == value) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        });
        everywhere.await.is_ok()
    }

    /// How many messages the nodes have sent each other.
    pub fn messages(&self) -> u64 {
        self.links.values().map(Proxy::messages).sum()
    }
}
