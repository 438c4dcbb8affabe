//! R + W > N: is a quorum enough? We hold messages back, and read twice.

use std::time::Duration;

use anyhow::bail;
use conform::target::within;
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Side},
};

use super::{fixture::Cluster, recording::Recording};
use crate::{checker::check, history::Operation};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// How often it is played, each time on a new cluster
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "quorum-is-not-enough",
        "With R + W > N a client still reads the old value after another has read the new one, while a write is under \
         way. The register of Attiya, Bar-Noy and Dolev writes back what it reads, and the second reader sees the new value",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/coordinator.rs",
        replace: "let all_have_it = seen.answers.iter().all(|(_, record)| *record == newest);",
        with: "let all_have_it = true;",
        check: "atomic: rounds in which the second reader saw the new value",
    })
}

const KEY: &str = "key";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let rounds = params.rounds;
    let (mut back, mut violations, mut held, mut forward, mut linearizable) = (0, 0, 0, 0, 0);
    for round in 0..rounds {
        lab.progress(round, rounds, "two readers read while a write is under way");
        // A plain quorum, of the same nodes and the same messages.
        let plain = play("lww", 1).await?;
        back += u64::from(plain.first == "new" && plain.second == "old");
        violations += u64::from(check(&plain.history).is_err());
        // The first message of an atomic write asks for the number; the second one carries the value.
        let atomic = play("atomic", 2).await?;
        held += u64::from(atomic.was_held);
        forward += u64::from(atomic.first == "new" && atomic.second == "new");
        linearizable += u64::from(check(&atomic.history).is_ok());
        if round == 0 {
            table(&lab, "plain quorum", &plain.history);
            table(&lab, "atomic", &atomic.history);
        }
    }
    let name = "plain quorum: rounds in which the new value was read, and then the old one";
    lab.check_eq(name, rounds, back);
    lab.check_eq("plain quorum: histories that are not linearizable", rounds, violations);
    lab.check_eq("atomic: rounds in which the second step of the write was held", rounds, held);
    lab.check_eq("atomic: rounds in which the second reader saw the new value", rounds, forward);
    lab.check_eq("atomic: histories that are linearizable", rounds, linearizable);
    Ok(())
}

/// One round, in the order in which the operations were called.
fn table(lab: &Lab, title: &str, history: &[Operation]) {
    let mut history = history.to_vec();
    history.sort_by_key(|it| it.called);
    let rows = history.iter().map(|it| {
        let returned = it.returned.map_or_else(|| "never".to_owned(), |it| it.to_string());
        vec![format!("client {}", it.client), it.words(), it.called.to_string(), returned]
    });
    let columns = ["who", "what", "called at event", "returned at event"];
    lab.table(format!("One round, {title}"), &columns, rows.collect());
}

/// What was seen in a round.
struct Played {
    first: String,
    second: String,
    was_held: bool,
    history: Vec<Operation>,
}

/// Node 0 takes a write. Its message to node 1 is held; `message` is the number of the one that carries the value. All of
/// its messages to node 2 are held, and so are those of node 1 to node 0. So node 0 finds a majority with node 1, and node
/// 1 with node 2. One client reads through node 0, and when it has its answer, another one reads through node 1.
async fn play(kind: &str, message: u64) -> anyhow::Result<Played> {
    let cluster = Cluster::three().await?;
    let recording = Recording::default();
    let [at_0, at_1, _] = &cluster.clients[..] else { bail!("three nodes") };
    let all = if kind == "lww" { "w=all&kind=lww" } else { "kind=atomic" };
    recording.write(0, at_0, KEY, all, "old").await?;
    let link = cluster.link(0, 1)?;
    // From here on, every message is one of those that we count: the nodes have the old value, and the calls of its write are
    // over. If it does not come to that, the checks say so.
    if cluster.everywhere(KEY, kind, "old").await {
        let sent = async || Ok((link.messages() >= message).then_some(()));
        let _ = within(Duration::from_secs(2), "the calls are over", sent).await;
    }
    cluster.link(0, 2)?.set(Fault::BlackHole);
    cluster.link(1, 0)?.set(Fault::BlackHole);
    let caught = link.at_message(link.messages() + message, Side::Before);
    let mut writing = {
        let (recording, node, kind) = (recording.clone(), at_0.clone(), format!("kind={kind}"));
        tokio::spawn(async move { recording.write(0, &node, KEY, &kind, "new").await })
    };
    let held = tokio::select! {
        held = caught => Some(held?),
        ended = &mut writing => {
            ended??;
            // It had no message of this number. Let nothing else be caught in its place.
            drop(link.at_message(u64::MAX, Side::Before));
            None
        }
    };
    let query = format!("r=quorum&kind={kind}");
    let first = recording.read(1, at_0, KEY, &query).await?;
    let second = recording.read(2, at_1, KEY, &query).await?;
    let was_held = held.is_some();
    drop(held);
    cluster.set_all(Fault::None);
    if was_held {
        writing.await??;
    }
    let [first, second] =
        [first, second].map(|it| it.value.unwrap_or_else(|| format!("status {}", it.status)));
    Ok(Played { first, second, was_held, history: recording.history() })
}
