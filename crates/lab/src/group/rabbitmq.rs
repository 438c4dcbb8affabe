//! Three RabbitMQ nodes that form one broker. A quorum queue has a copy on each of them, and one copy leads.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::{PATIENCE, ServerGroup, adapt, prepare, start_all, until};
use crate::{
    needs::Group,
    port,
    stack::{own::OwnServer, programs::undisturbed, service::Launch},
};

const NODES: usize = 3;

/// The group.
#[derive(Debug)]
pub struct RabbitMqGroup {
    /// The nodes.
    pub members: Vec<OwnServer>,
    /// Where their port mapper listens.
    epmd_port: u16,
}

impl ServerGroup for RabbitMqGroup {
    const GROUP: Group = Group::RabbitMqCluster;

    async fn start() -> anyhow::Result<Self> {
        let mut members = prepare(Self::GROUP, NODES).await?;
        // They find each other by name through one `epmd`. The first node starts it. Each keeper tells it to end after
        // its node has ended. `epmd` refuses while it knows another node, so it ends after the last node.
        let epmd_port = port::free()?;
        let cookie = format!("{:032x}", rand::random::<u128>());
        for (number, member) in members.iter_mut().enumerate() {
            member.home().write(".erlang.cookie", &cookie)?;
            let extra = member.home().write("cluster.config", &cluster(number))?;
            let extra = extra.to_str().context("a folder that is not UTF-8")?.to_owned();
            adapt(member, move |launch| {
                set(launch, "RABBITMQ_NODENAME", name(number));
                set(launch, "RABBITMQ_ADVANCED_CONFIG_FILE", extra.clone());
                set(launch, "ERL_EPMD_PORT", epmd_port.to_string());
                set(launch, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG.to_owned());
                launch.after.truncate(1);
                launch.after.extend(["-port".into(), epmd_port.to_string(), "-kill".into()]);
            });
        }
        // The others join the first node after it has made its own database. Three that start together compete for a
        // lock, and the losers wait for seconds.
        let (first, others) = members.split_first_mut().context("three of them")?;
        let log = first.home().path.join("log");
        let can_be_joined = || async {
            let log = tokio::fs::read_to_string(&log).await?;
            Ok(log.contains("Successfully synced tables").then_some(()))
        };
        let joined = async {
            until("the first node", PATIENCE, can_be_joined).await?;
            start_all(others).await
        };
        tokio::try_join!(first.restart(), joined)?;
        Ok(Self { members, epmd_port })
    }

    fn members(&self) -> &[OwnServer] {
        &self.members
    }
}

impl RabbitMqGroup {
    /// The node that leads this quorum queue. To choose one, declare the queue through a connection to it, with
    /// `x-queue-leader-locator` as `client-local`.
    pub async fn leader(&self, queue: &str) -> anyhow::Result<Option<usize>> {
        let leaders = self.leaders().await?;
        Ok(*leaders.get(queue).context("no such queue")?)
    }

    /// The node that leads each queue. This takes two seconds, because only RabbitMQ's own tool can ask.
    pub async fn leaders(&self) -> anyhow::Result<BTreeMap<String, Option<usize>>> {
        for (number, member) in self.members.iter().enumerate() {
            // The tool would wait for a node that is paused or gone.
            if member.version().await.is_err() {
                continue;
            }
            let words = ["list_queues", "name", "leader", "--formatter", "json"];
            let queues: Value = serde_json::from_slice(&self.rabbitmqctl(number, &words).await?)?;
            let queues = queues.as_array().context("no list of queues")?;
            let leader = |queue: &Value| (0..NODES).find(|&node| queue["leader"] == name(node));
            let named = |queue: &Value| Some((queue["name"].as_str()?.to_owned(), leader(queue)));
            return Ok(queues.iter().filter_map(named).collect());
        }
        bail!("no node answers")
    }

    /// Runs a command of RabbitMQ's own tool on this node, and returns what it prints.
    pub async fn rabbitmqctl(&self, member: usize, words: &[&str]) -> anyhow::Result<Vec<u8>> {
        let server = &self.members[member];
        let mut rabbitmqctl = Command::new(server.programs()?.folder.join("rabbitmqctl"));
        undisturbed(rabbitmqctl.as_std_mut());
        let output = rabbitmqctl
            .args(["--node", &name(member), "--quiet"])
            .args(words)
            .env("HOME", &server.home().path)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_CTL_ERL_ARGS", LOOPBACK)
            .current_dir(&server.home().path)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("rabbitmqctl cannot be run")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "rabbitmqctl failed: {words}");
        Ok(output.stdout)
    }
}

/// The nodes talk to each other on loopback only.
const LOOPBACK: &str = "-kernel inet_dist_use_interface {127,0,0,1}";

/// The same, and two schedulers for each node, because the nodes share one machine.
const ERLANG: &str = "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2";

fn name(number: usize) -> String {
    format!("n{number}@localhost")
}

/// The configuration of a node: which node it joins, and that it pauses when it sees only a minority of the group.
fn cluster(number: usize) -> String {
    let joins =
        if number == 0 { String::new() } else { format!("'{}', '{}'", name(0), name(number)) };
    format!(
        "[{{rabbit, [{{cluster_nodes, {{[{joins}], disc}}}},\n\
         {{cluster_partition_handling, pause_minority}}]}}].\n"
    )
}

fn set(launch: &mut Launch, name: &str, value: String) {
    launch.environment.retain(|(it, _)| it != name);
    launch.environment.push((name.to_owned(), value));
}
