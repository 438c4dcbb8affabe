//! How many nodes have to answer before the client gets its answer? The client says it, in each request. A node that
//! takes a request coordinates it: it asks the others and counts.

use std::sync::Arc;

use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};
use crate::peers::Peers;
use crate::record::{Change, Kind, Record, Slot};
use crate::replica::Replica;
use crate::version::Node;

/// How many nodes have to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The node that was asked, and no other.
    One,
    /// A majority. Any two majorities have a node in common.
    Quorum,
    /// Every node.
    All,
}

impl Level {
    /// Each, with its name in a query.
    pub const ALL: [(&str, Self); 3] =
        [("1", Self::One), ("quorum", Self::Quorum), ("all", Self::All)];

    /// The number of nodes, of so many in all.
    pub fn of(self, nodes: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Quorum => nodes / 2 + 1,
            Self::All => nodes,
        }
    }
}

/// Answers that came, and calls that have not ended yet.
struct Gathered {
    answers: Vec<(Node, Record)>,
    late: JoinSet<Option<(Node, Record)>>,
}

/// Coordinates the requests that clients send to this node.
#[derive(Clone, Debug)]
pub struct Coordinator {
    /// This node.
    pub replica: Arc<Replica>,
    /// The others.
    pub peers: Peers,
    /// What goes on after the client has its answer: late calls and repairs. Whoever stops the node waits for it.
    pub tasks: TaskTracker,
}

impl Coordinator {
    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.peers.all().count() + 1
    }

    fn others(&self) -> Vec<Node> {
        self.peers.all().map(|(node, _)| node).collect()
    }

    /// Reads a register.
    pub async fn read(&self, slot: &Slot, level: Level) -> Result<Record> {
        match slot.kind {
            Kind::Atomic => self.read_atomic(slot).await,
            _ => self.read_quorum(slot, level).await,
        }
    }

    /// Changes a register. Returns what this node knows then, and how many nodes have it.
    pub async fn write(
        &self,
        slot: &Slot,
        change: Change,
        level: Level,
    ) -> Result<(Record, usize)> {
        match slot.kind {
            Kind::Atomic => self.write_atomic(slot, change).await,
            _ => self.write_quorum(slot, change, level).await,
        }
    }

    /// Lets a write come to its end if its client hangs up: it may be in our log, so it must reach the others and the
    /// history.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let ended = self.tasks.spawn(write).await;
        ended.map_err(|error| Error::Internal(error.to_string()))?
    }

    // ANCHOR: quorum
    /// Asks the other nodes, and merges what comes. Nodes that lag are repaired afterwards.
    async fn read_quorum(&self, slot: &Slot, level: Level) -> Result<Record> {
        let gathered = match level {
            Level::One => return Ok(self.replica.get(slot)),
            Level::Quorum | Level::All => self.ask(slot, level).await?,
        };
        let merged = merged(slot, &gathered.answers);
        self.tasks.spawn(self.clone().repair(slot.clone(), gathered));
        Ok(merged)
    }

    /// Writes at this node, sends the record to all others, and returns when enough have it.
    async fn write_quorum(
        &self,
        slot: &Slot,
        change: Change,
        level: Level,
    ) -> Result<(Record, usize)> {
        let record = self.write_here(slot, change, 0).await?;
        let acknowledged = self.tell(slot, &record, level).await?;
        Ok((record, acknowledged))
    }
    // ANCHOR_END: quorum

    // ANCHOR: atomic
    /// The register of Attiya, Bar-Noy and Dolev. First ask a majority which number is the greatest; then write with a
    /// greater one. Two majorities have a node in common, so every write that has ended is seen here.
    async fn write_atomic(&self, slot: &Slot, change: Change) -> Result<(Record, usize)> {
        let seen = self.ask(slot, Level::Quorum).await?;
        let number = merged(slot, &seen.answers).number();
        self.finish(seen);
        let record = self.write_here(slot, change, number).await?;
        let acknowledged = self.tell(slot, &record, Level::Quorum).await?;
        Ok((record, acknowledged))
    }

    /// Asks a majority; and before it answers, makes sure that a majority has what it has seen. Without that, the next
    /// reader could meet a majority that does not have it yet, and would read an older value after a newer one.
    async fn read_atomic(&self, slot: &Slot) -> Result<Record> {
        let seen = self.ask(slot, Level::Quorum).await?;
        let newest = merged(slot, &seen.answers);
        let all_have_it = seen.answers.iter().all(|(_, record)| *record == newest);
        self.finish(seen);
        if !all_have_it {
            self.merge_here(slot, newest.clone()).await?;
            self.tell(slot, &newest, Level::Quorum).await?;
        }
        Ok(newest)
    }
    // ANCHOR_END: atomic

    // ANCHOR: gather
    /// Asks all nodes at once, and returns when enough have answered.
    async fn ask(&self, slot: &Slot, level: Level) -> Result<Gathered> {
        let own = (self.replica.node, self.replica.get(slot));
        let late = self.peers.exchange(self.others(), slot, None);
        self.gather(vec![own], late, level).await
    }

    /// Sends all other nodes this record, which this one has, and returns how many have it when enough do.
    async fn tell(&self, slot: &Slot, record: &Record, level: Level) -> Result<usize> {
        let own = (self.replica.node, record.clone());
        let late = self.peers.exchange(self.others(), slot, Some(record));
        let gathered = self.gather(vec![own], late, level).await?;
        let acknowledged = gathered.answers.len();
        self.finish(gathered);
        Ok(acknowledged)
    }

    async fn gather(
        &self,
        mut answers: Vec<(Node, Record)>,
        mut late: JoinSet<Option<(Node, Record)>>,
        level: Level,
    ) -> Result<Gathered> {
        let needed = level.of(self.nodes());
        while answers.len() < needed {
            let Some(ended) = late.join_next().await else {
                return Err(Error::TooFew { got: answers.len(), needed });
            };
            // A call that failed is no answer.
            answers.extend(ended.ok().flatten());
        }
        Ok(Gathered { answers, late })
    }
    // ANCHOR_END: gather

    /// Lets the calls that are still under way come to their end: the record reaches every node that can be reached.
    fn finish(&self, gathered: Gathered) {
        let mut late = gathered.late;
        self.tasks.spawn(async move { while late.join_next().await.is_some() {} });
    }

    // ANCHOR: repair
    /// Read repair: sends what all nodes know together to each one that has less.
    async fn repair(self, slot: Slot, gathered: Gathered) {
        let Gathered { mut answers, mut late } = gathered;
        while let Some(ended) = late.join_next().await {
            answers.extend(ended.ok().flatten());
        }
        let merged = merged(&slot, &answers);
        let lagging = answers.into_iter().filter(|(_, record)| *record != merged);
        let lagging: Vec<_> = lagging.map(|(node, _)| node).collect();
        let here = self.replica.node;
        if lagging.contains(&here)
            && let Err(error) = self.merge_here(&slot, merged.clone()).await
        {
            tracing::warn!(%error, "this node was not repaired");
        }
        let others = lagging.into_iter().filter(|node| *node != here);
        let mut calls = self.peers.exchange(others, &slot, Some(&merged));
        while calls.join_next().await.is_some() {}
    }
    // ANCHOR_END: repair

    async fn write_here(&self, slot: &Slot, change: Change, seen: u64) -> Result<Record> {
        let (replica, slot) = (Arc::clone(&self.replica), slot.clone());
        on_disk(move || replica.write(&slot, change, seen)).await
    }

    /// Takes in at this node what another one knows.
    pub async fn merge_here(&self, slot: &Slot, record: Record) -> Result<Record> {
        let (replica, slot) = (Arc::clone(&self.replica), slot.clone());
        on_disk(move || replica.merge(&slot, record)).await
    }
}

/// What these nodes know together.
fn merged(slot: &Slot, answers: &[(Node, Record)]) -> Record {
    let mut merged = Record::empty(slot.kind);
    for (_, record) in answers {
        merged.merge(record);
    }
    merged
}

/// Runs what waits for the disk where it holds up no other task.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_have_a_node_in_common() {
        for nodes in 1..=9 {
            assert!(2 * Level::Quorum.of(nodes) > nodes, "{nodes}");
            assert!(2 * (Level::Quorum.of(nodes) - 1) <= nodes, "{nodes}: fewer would do");
        }
        assert_eq!(Level::Quorum.of(2), 2, "in a cluster of two, a majority is both");
    }
}
