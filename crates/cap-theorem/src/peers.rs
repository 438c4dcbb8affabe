//! How does a node ask the others? One call each, all at once, and whoever answers counts.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use url::Url;

use crate::record::{Record, Slot};
use crate::version::Node;

/// What one node sends another: what it knows of a register, or nothing if it only asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// The register.
    pub slot: Slot,
    /// What the sender knows. The receiver merges it before it answers.
    pub record: Option<Record>,
}

/// What a node answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Known {
    /// Its number.
    pub node: Node,
    /// What it knows of the register.
    pub record: Record,
}

/// The other nodes of the cluster.
#[derive(Clone, Debug)]
pub struct Peers {
    urls: BTreeMap<Node, Url>,
    cluster_key: String,
    http: Client,
}

impl Peers {
    /// The other nodes at these addresses. A call that takes longer than `patience` counts as no answer.
    pub fn new(
        urls: BTreeMap<Node, Url>,
        cluster_key: &str,
        patience: Duration,
    ) -> reqwest::Result<Self> {
        // Not through a proxy that the environment names: the nodes know each other's addresses.
        let http = Client::builder().no_proxy().timeout(patience).build()?;
        Ok(Self { urls, cluster_key: cluster_key.to_owned(), http })
    }

    /// Their numbers and addresses.
    pub fn all(&self) -> impl Iterator<Item = (Node, &Url)> {
        self.urls.iter().map(|(&node, url)| (node, url))
    }

    /// Sends each of these nodes what we know, or only asks them. Those that do not answer give `None`.
    ///
    /// All calls run at once, and go on while the caller waits for the first answers. Each ends after `patience` at the
    /// latest, so their number is bounded by the clients' rate.
    pub fn exchange(
        &self,
        nodes: impl IntoIterator<Item = Node>,
        slot: &Slot,
        record: Option<&Record>,
    ) -> JoinSet<Option<(Node, Record)>> {
        let mut calls = JoinSet::new();
        for node in nodes {
            let peers = self.clone();
            let exchange = Exchange { slot: slot.clone(), record: record.cloned() };
            calls.spawn(async move {
                let answer = peers.call(node, &exchange).await;
                let answer = answer.inspect_err(|error| tracing::debug!(node, %error, "no answer"));
                // Two addresses of one process must not count as two nodes.
                answer.ok().filter(|it| it.node == node).map(|it| (node, it.record))
            });
        }
        calls
    }

    async fn call(&self, node: Node, exchange: &Exchange) -> reqwest::Result<Known> {
        // `exchange` takes its nodes from `all`; a number that is not there is asked nowhere and does not answer.
        let url = self.urls.get(&node).map(|url| format!("{url}replica")).unwrap_or_default();
        let call = self.http.post(url).bearer_auth(&self.cluster_key).json(exchange);
        call.send().await?.error_for_status()?.json().await
    }

    /// Which of the others can be reached now.
    pub async fn reachable(&self) -> Vec<Node> {
        let mut calls = JoinSet::new();
        for (node, url) in self.all() {
            let call = self.http.get(format!("{url}healthz")).send();
            calls.spawn(async move { call.await.is_ok().then_some(node) });
        }
        let mut reachable: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
        reachable.sort_unstable();
        reachable
    }
}
