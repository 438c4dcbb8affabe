//! Redis Cluster: three masters, each with a third of the slots, and a replica for each of them.

use anyhow::{Context, bail, ensure};
use futures_util::future::join_all;

use super::{
    PATIENCE, ServerGroup, prepare,
    redis_sentinel::{configure, connect, is_in_sync, replicated},
    soon, start_all, until,
};
use crate::{needs::Group, port, stack::own::OwnServer};

/// How many of the members are masters at first. The member `MASTERS + n` is the replica of `n`.
pub const MASTERS: usize = 3;
const SLOTS: u16 = 16_384;

/// The group.
#[derive(Debug)]
pub struct RedisCluster {
    /// Six servers: at first three masters, then their replicas.
    pub members: Vec<OwnServer>,
}

impl ServerGroup for RedisCluster {
    const GROUP: Group = Group::RedisCluster;

    async fn start() -> anyhow::Result<Self> {
        let mut members = prepare(Self::GROUP, 2 * MASTERS).await?;
        let mut buses = Vec::new();
        for member in &mut members {
            // The default is the server's port plus 10,000, where another program may listen.
            let bus = port::free()?;
            let config = format!(
                "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port {bus}\n\
                 cluster-node-timeout 1000\n",
            );
            configure(member, &(replicated(member)? + &config), &[])?;
            buses.push(bus);
        }
        start_all(&mut members).await?;
        let cluster = Self { members };
        cluster.share_the_slots().await?;
        cluster.meet(&buses).await?;
        until("every node to know all others", PATIENCE, || cluster.all_have_met()).await?;
        cluster.replicate().await?;
        until("the cluster to be whole", PATIENCE, || cluster.is_whole()).await?;
        Ok(cluster)
    }

    fn members(&self) -> &[OwnServer] {
        &self.members
    }
}

impl RedisCluster {
    /// The slot of a key.
    pub async fn slot_of(&self, key: &str) -> anyhow::Result<u16> {
        for member in &self.members {
            // A member that is paused or gone does not answer; any other member can.
            if let Some(slot) = soon(slot(member, key)).await {
                return Ok(slot);
            }
        }
        bail!("no member answers")
    }

    /// The master of this slot. If two claim it, the one that was elected later has it; the other has not yet heard of
    /// the election.
    pub async fn leader(&self, slot: u16) -> Option<usize> {
        let selves = join_all(self.members.iter().map(|member| soon(itself(member)))).await;
        let owners = selves.into_iter().enumerate().filter_map(|(member, it)| {
            let it = it.filter(|it| it.is_master && it.has(slot))?;
            Some((it.epoch, member))
        });
        owners.max().map(|(_, member)| member)
    }

    async fn share_the_slots(&self) -> anyhow::Result<()> {
        let masters = u16::try_from(MASTERS)?;
        for (number, master) in (0..masters).zip(&self.members) {
            let mut connection = connect(master).await?;
            let mut command = redis::cmd("CLUSTER");
            // A different epoch for each, so that they meet without a conflict.
            command.arg("SET-CONFIG-EPOCH").arg(number + 1).exec_async(&mut connection).await?;
            let (first, last) = (SLOTS / masters * number, SLOTS / masters * (number + 1) - 1);
            let last = if number + 1 == masters { SLOTS - 1 } else { last };
            let mut command = redis::cmd("CLUSTER");
            command.arg("ADDSLOTSRANGE").arg(first).arg(last).exec_async(&mut connection).await?;
        }
        Ok(())
    }

    async fn meet(&self, buses: &[u16]) -> anyhow::Result<()> {
        let mut first = connect(&self.members[0]).await?;
        for (member, bus) in self.members.iter().zip(buses).skip(1) {
            let mut command = redis::cmd("CLUSTER");
            command.arg("MEET").arg("127.0.0.1").arg(member.port()?).arg(bus);
            command.exec_async(&mut first).await?;
        }
        Ok(())
    }

    async fn all_have_met(&self) -> anyhow::Result<Option<()>> {
        for member in &self.members {
            let nodes = nodes(member).await?;
            let known = nodes.lines().filter(|line| !line.contains("handshake")).count();
            if known < self.members.len() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    async fn replicate(&self) -> anyhow::Result<()> {
        for (master, replica) in self.members.iter().zip(&self.members[MASTERS..]) {
            let master = itself(master).await?.id;
            let mut command = redis::cmd("CLUSTER");
            command.arg("REPLICATE").arg(master);
            command.exec_async(&mut connect(replica).await?).await?;
        }
        Ok(())
    }

    /// `Some` if every node finds the cluster healthy, and every replica has its master's data and every node knows it
    /// as a replica: only then can it be elected.
    async fn is_whole(&self) -> anyhow::Result<Option<()>> {
        for (number, member) in self.members.iter().enumerate() {
            let mut command = redis::cmd("CLUSTER");
            let state: String =
                command.arg("INFO").query_async(&mut connect(member).await?).await?;
            let replicas = nodes(member).await?.matches("slave ").count();
            let ready = number < MASTERS || is_in_sync(member).await?;
            if !(state.contains("cluster_state:ok") && replicas == MASTERS && ready) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }
}

/// What a node says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Itself {
    id: String,
    is_master: bool,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl Itself {
    /// Reads a line of `CLUSTER NODES`: id, address, flags, master, ping, pong, epoch, link, and then its slots.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [id, _, flags, _, _, _, epoch, _, slots @ ..] = &fields[..] else { return None };
        let range = |text: &&str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Some(Self {
            id: (*id).to_owned(),
            is_master: flags.split(',').any(|flag| flag == "master"),
            epoch: epoch.parse().ok()?,
            // A slot in brackets is moving between nodes, and does not count.
            slots: slots.iter().filter_map(range).collect(),
        })
    }

    fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|&(first, last)| (first..=last).contains(&slot))
    }
}

async fn slot(member: &OwnServer, key: &str) -> anyhow::Result<u16> {
    let mut command = redis::cmd("CLUSTER");
    Ok(command.arg("KEYSLOT").arg(key).query_async(&mut connect(member).await?).await?)
}

async fn itself(member: &OwnServer) -> anyhow::Result<Itself> {
    let nodes = nodes(member).await?;
    let line = nodes.lines().find(|line| line.contains("myself"));
    line.and_then(Itself::parse).with_context(|| format!("it does not know itself: {nodes}"))
}

async fn nodes(member: &OwnServer) -> anyhow::Result<String> {
    let mut command = redis::cmd("CLUSTER");
    let nodes: String = command.arg("NODES").query_async(&mut connect(member).await?).await?;
    ensure!(!nodes.is_empty(), "it knows no node");
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_about_itself_is_understood() {
        let line = "a07b 127.0.0.1:21401@21421 myself,master - 0 1795891687000 2 connected \
                    5461-10922 12000 [7-<-c625]";
        let seen = Itself::parse(line).unwrap();
        assert!(seen.is_master && seen.epoch == 2 && seen.id == "a07b");
        assert_eq!(seen.slots, [(5_461, 10_922), (12_000, 12_000)]);
        assert!(seen.has(5_461) && seen.has(12_000) && !seen.has(10_923));
    }
}
