//! Three etcd nodes. Every link between two of them can be cut, in either direction.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    PATIENCE, ServerGroup, adapt,
    links::{Links, Node},
    prepare, soon, start_all, until,
};
use crate::{needs::Group, port, stack::own::OwnServer};

const NODES: usize = 3;

/// Without this limit, a request that is in flight when the leader dies would wait seven seconds for an error.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The group.
#[derive(Debug)]
pub struct EtcdGroup {
    /// The nodes.
    pub members: Vec<OwnServer>,
    /// What connects them, by their numbers in `members`. Clients are not affected.
    pub links: Links,
    http: reqwest::Client,
}

/// How current the value that is read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The node asks the leader, and the leader asks a majority: the newest value that was written before.
    Linearizable,
    /// The value that this node has, however old.
    Serializable,
}

impl ServerGroup for EtcdGroup {
    const GROUP: Group = Group::EtcdCluster;

    async fn start() -> anyhow::Result<Self> {
        let mut members = prepare(Self::GROUP, NODES).await?;
        // No such hosts exist. For a host on loopback, Go's HTTP client would not use the proxy.
        let host = |number| format!("n{number}.lab");
        let ports: Vec<u16> = (0..NODES).map(|_| port::free()).collect::<anyhow::Result<_>>()?;
        let nodes = ports.iter().enumerate();
        let nodes =
            nodes.map(|(n, &port)| Node { host: host(n), address: ([127, 0, 0, 1], port).into() });
        let links = Links::between(nodes.collect()).await?;
        let peer = |n: usize| format!("http://{}:{}", host(n), ports[n]);
        let cluster: Vec<_> = (0..NODES).map(|n| format!("n{n}={}", peer(n))).collect();
        for (n, member) in members.iter_mut().enumerate() {
            let (clients, data) = (member.url()?, member.home().path.join("data"));
            let arguments = [
                ("--name", format!("n{n}")),
                ("--data-dir", data.to_str().context("a folder that is not UTF-8")?.to_owned()),
                ("--listen-client-urls", clients.clone()),
                ("--advertise-client-urls", clients),
                ("--listen-peer-urls", format!("http://127.0.0.1:{}", ports[n])),
                ("--initial-advertise-peer-urls", peer(n)),
                ("--initial-cluster", cluster.join(",")),
            ];
            let proxy = links.proxy(n);
            adapt(member, move |launch| {
                launch.command.truncate(1);
                for (name, value) in &arguments {
                    launch.command.extend([(*name).to_owned(), value.clone()]);
                }
                // Go reads the second name of each pair if the first is unset or empty.
                for name in ["HTTP_PROXY", "http_proxy"] {
                    launch.environment.push((name.to_owned(), proxy.clone()));
                }
                for name in ["NO_PROXY", "no_proxy"] {
                    launch.environment.push((name.to_owned(), String::new()));
                }
            });
        }
        start_all(&mut members).await?;
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build()?;
        let group = Self { members, links, http };
        until("a leader", PATIENCE, async || Ok(group.leader().await)).await?;
        Ok(group)
    }

    fn members(&self) -> &[OwnServer] {
        &self.members
    }
}

impl EtcdGroup {
    /// The node that says that it leads. If two say so, the one with the later term leads; the other has not yet heard
    /// of that term.
    pub async fn leader(&self) -> Option<usize> {
        let terms = join_all((0..NODES).map(|member| soon(self.leads(member)))).await;
        let leaders = terms.into_iter().enumerate();
        let leaders = leaders.filter_map(|(member, term)| Some((term??, member)));
        leaders.max().map(|(_, member)| member)
    }

    /// The term in which this node leads, if it does.
    async fn leads(&self, member: usize) -> anyhow::Result<Option<u64>> {
        let status = self.ask(member, "v3/maintenance/status", &json!({})).await?;
        let term = status["raftTerm"].as_str().context("no term")?.parse()?;
        Ok((status["leader"] == status["header"]["member_id"]).then_some(term))
    }

    /// Writes through this node. After an error, the value may or may not have been written.
    pub async fn put(&self, member: usize, key: &str, value: &str) -> anyhow::Result<()> {
        let pair = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) });
        self.ask(member, "v3/kv/put", &pair).await.map(drop)
    }

    /// Reads through this node.
    pub async fn get(
        &self,
        member: usize,
        key: &str,
        read: Read,
    ) -> anyhow::Result<Option<String>> {
        let serializable = read == Read::Serializable;
        let range = json!({ "key": STANDARD.encode(key), "serializable": serializable });
        let found = self.ask(member, "v3/kv/range", &range).await?;
        let Some(value) = found["kvs"][0]["value"].as_str() else { return Ok(None) };
        Ok(Some(String::from_utf8(STANDARD.decode(value)?)?))
    }

    /// Calls etcd's gateway: the gRPC calls as JSON, with keys and values in Base64.
    async fn ask(&self, member: usize, path: &str, question: &Value) -> anyhow::Result<Value> {
        let url = format!("{}/{path}", self.members[member].url()?);
        let response = self.http.post(url).json(question).send().await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        ensure!(status.is_success(), "{status}: {answer}");
        Ok(answer)
    }
}
