//! What does a store do that is never wrong, while its network is cut? The side without a majority has no answer. We cut
//! the leader of an etcd off, again and again, and judge the history of all that its clients saw. Each client waits for a
//! second: to the theorem, a refusal and an answer that never comes are the same.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lab::{
    Experiment, Lab, Need, Sabotage,
    group::{EtcdGroup, ServerGroup, etcd::Read, until},
};

use super::recording::Recording;
use crate::{checker::check, history::Action};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// How often the leader is cut off. Each time takes some seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cp",
        "While its leader is cut off, etcd's minority acknowledges no write and answers no linearizable read within a \
         second, and its majority goes on after an election: the history is linearizable. Serializable reads are answered \
         on both sides, and with them it is not",
        &["--rounds", "1"],
        run,
    )
    .needs(&[Need::Group(EtcdGroup::GROUP)])
    .sabotage(Sabotage {
        file: "src/checker.rs",
        replace: "if operation.called > first_return {",
        with: "if operation.called == u64::MAX {",
        check: "the history with the serializable reads",
    })
}

/// Longer than elections take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What was seen while the leader was cut off.
#[derive(Default)]
struct Counts {
    writes_unanswered: u64,
    reads_unanswered: u64,
    went_on: u64,
    stale: u64,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let etcd = lab.group::<EtcdGroup>().await?;
    let (strong, with_stale) = (Recording::default(), Recording::default());
    let mut counts = Counts::default();
    for round in 0..params.rounds {
        lab.progress(round, params.rounds, "the leader is cut off");
        cut_the_leader_off(&etcd, round, &strong, &with_stale, &mut counts).await?;
    }
    let rounds = params.rounds;
    let name = "minority: writes that were not acknowledged within a second";
    lab.check_eq(name, rounds, counts.writes_unanswered);
    let name = "minority: linearizable reads that were not answered within a second";
    lab.check_eq(name, rounds, counts.reads_unanswered);
    lab.check_eq("minority: serializable reads that gave an old value", rounds, counts.stale);
    lab.check_eq("majority: rounds in which it wrote and read on", rounds, counts.went_on);
    let words = |holds: bool| if holds { "linearizable" } else { "not linearizable" };
    let history = strong.history();
    lab.check_eq("the history", "linearizable", words(check(&history).is_ok()));
    lab.figure("operations in the history", history.len() as f64, "");
    let verdict = words(check(&with_stale.history()).is_ok());
    lab.check_eq("the history with the serializable reads", "not linearizable", verdict);
    Ok(())
}

async fn cut_the_leader_off(
    etcd: &EtcdGroup,
    round: u64,
    strong: &Recording,
    with_stale: &Recording,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let key = format!("key-{round}");
    let leader = until("a leader", PATIENCE, async || Ok(etcd.leader().await)).await?;
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let both = [strong, with_stale];
    let attempts = AtomicU32::new(0);
    write_until_done(etcd, leader, &key, &attempts, &both).await?;
    let old = until("a read of the leader", PATIENCE, async || {
        Ok(Some(read(etcd, leader, &key, &both).await?))
    })
    .await?;
    etcd.links.isolate(leader);
    // The minority. A write without an answer may have taken effect, and the checker knows that.
    counts.writes_unanswered += u64::from(!write(etcd, leader, &key, "unanswered", &both).await);
    counts.reads_unanswered += u64::from(read(etcd, leader, &key, &both).await.is_err());
    // The majority, when it has a new leader. Then one client reads while another one writes.
    write_until_done(etcd, other, &key, &attempts, &both).await?;
    let write_on = async {
        for _ in 0..5 {
            write_until_done(etcd, other, &key, &attempts, &both).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        written = write_on => written?,
        never = read_on(etcd, third, &key, &both) => match never {},
    }
    let new = until("a read of the majority", PATIENCE, async || {
        Ok(Some(read(etcd, other, &key, &both).await?))
    })
    .await?;
    counts.went_on += u64::from(new.is_some() && new != old);
    let (called, stale) = until("a serializable read", PATIENCE, async || {
        let called = with_stale.tick();
        Ok(Some((called, etcd.get(leader, &key, Read::Serializable).await?)))
    })
    .await?;
    counts.stale += u64::from(stale == old);
    with_stale.note(9, &key, Action::Read(stale), called, true);
    etcd.links.heal();
    until("the old leader to follow", PATIENCE, async || {
        Ok(Some(read(etcd, leader, &key, &both).await?))
    })
    .await
    .map(drop)
}

/// Writes through this node until a write is acknowledged, each time another value.
async fn write_until_done(
    etcd: &EtcdGroup,
    node: usize,
    key: &str,
    attempts: &AtomicU32,
    recordings: &[&Recording; 2],
) -> anyhow::Result<()> {
    until("a write to be acknowledged", PATIENCE, async || {
        let value = format!("attempt {}", attempts.fetch_add(1, Ordering::Relaxed));
        Ok(write(etcd, node, key, &value, recordings).await.then_some(()))
    })
    .await
}

/// Reads through this node until it is dropped, at most twenty times.
async fn read_on(
    etcd: &EtcdGroup,
    node: usize,
    key: &str,
    recordings: &[&Recording; 2],
) -> Infallible {
    for _ in 0..20 {
        // One without an answer says nothing.
        let _ = read(etcd, node, key, recordings).await;
    }
    std::future::pending().await
}

/// Whether a write through this node was acknowledged.
async fn write(
    etcd: &EtcdGroup,
    node: usize,
    key: &str,
    value: &str,
    recordings: &[&Recording; 2],
) -> bool {
    let called = recordings.map(Recording::tick);
    let done = etcd.put(node, key, value).await.is_ok();
    for (recording, called) in recordings.iter().zip(called) {
        let client = u32::try_from(node).unwrap_or_default();
        recording.note(client, key, Action::Write(value.to_owned()), called, done);
    }
    done
}

/// A linearizable read through this node. One without an answer says nothing.
async fn read(
    etcd: &EtcdGroup,
    node: usize,
    key: &str,
    recordings: &[&Recording; 2],
) -> anyhow::Result<Option<String>> {
    let called = recordings.map(Recording::tick);
    let seen = etcd.get(node, key, Read::Linearizable).await?;
    for (recording, called) in recordings.iter().zip(called) {
        let client = u32::try_from(node).unwrap_or_default();
        recording.note(client, key, Action::Read(seen.clone()), called, true);
    }
    Ok(seen)
}
