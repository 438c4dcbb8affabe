//! What does a store do that always answers, while its network is cut? It answers. What that costs is seen afterwards.

use std::time::Duration;

use conform::target::within;
use lab::{Experiment, Lab, Sabotage};

use super::{fixture::Cluster, recording::Recording};
use crate::{checker::check, history::count};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Keys that are written on both sides
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=200))]
    keys: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "ap",
        "With w=1 and r=1 both sides of a cut go on, and the history is not linearizable. After healing, one read of \
         each key makes all nodes agree: siblings keep every acknowledged write, and of two writes the last-writer-wins \
         clock loses one",
        &["--keys", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/version.rs",
        replace: "let replaced = |dot: Dot, all: &[Version]| all.iter().any(|it| it.past.has(dot));",
        with: "let replaced = |dot: Dot, all: &[Version]| all.iter().any(|it| it.dot > dot);",
        check: "siblings: acknowledged values that are gone",
    })
}

/// Node 0 is alone; 1 and 2 are together.
const SIDES: [usize; 2] = [0, 1];
const PATIENCE: Duration = Duration::from_secs(10);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (step, kind) in (0..).zip(["siblings", "lww"]) {
        lab.progress(step, 2, format!("both sides write {kind}"));
        let cluster = Cluster::three().await?;
        let (recording, keys) = (Recording::default(), params.keys);
        let keys: Vec<_> = (0..keys).map(|n| format!("key-{n}")).collect();
        cluster.isolate(0);
        let (mut asked, mut answered) = (0, 0);
        let [w, r] = ["w", "r"].map(|it| format!("{it}=1&kind={kind}"));
        for key in &keys {
            // Each side writes, and reads what it has. The second side begins when the first has its answers.
            for side in SIDES {
                let client = u32::try_from(side)?;
                let node = &cluster.clients[side];
                let value = format!("{key} of side {side}");
                let before = recording.read(client, node, key, &r).await?.status;
                let written = recording.write(client, node, key, &w, &value).await?.status;
                let after = recording.read(client, node, key, &r).await?.status;
                asked += 3;
                let good = [before == 404, written == 200, after == 200];
                answered += good.into_iter().filter(|good| *good).count();
            }
        }
        lab.check_eq(format!("{kind}: requests that both sides answered"), asked, answered);
        let history = recording.history();
        let verdict = if check(&history).is_ok() { "linearizable" } else { "not linearizable" };
        lab.check_eq(format!("{kind}: the history"), "not linearizable", verdict);
        let stale = count(&history).stale_reads;
        lab.figure(format!("{kind}: stale reads"), stale as f64, "");
        cluster.heal().await?;
        let mut gone = 0;
        let mut with_siblings = 0;
        for key in &keys {
            let (values, _) = cluster.clients[0].read(key, &format!("r=all&kind={kind}")).await?;
            with_siblings += usize::from(values.len() > 1);
            let kept = |side| values.contains(&format!("{key} of side {side}"));
            gone += SIDES.into_iter().filter(|side| !kept(*side)).count();
        }
        let agree = agree(&cluster, &keys, &r).await;
        lab.check_eq(format!("{kind}: after one read of each key, all nodes agree"), true, agree);
        let name = format!("{kind}: acknowledged values that are gone");
        let expected = if kind == "lww" { keys.len() } else { 0 };
        lab.check_eq(name, expected, gone);
        let counts = [2 * keys.len(), with_siblings, gone].map(|count| count.to_string());
        rows.push([vec![kind.to_owned()], counts.to_vec()].concat());
    }
    let columns = ["kind", "acknowledged writes", "keys with siblings", "values that are gone"];
    lab.table("After the network has healed", &columns, rows);
    Ok(())
}

/// Whether all nodes give the same answers from what they have themselves, soon after a read has repaired them.
async fn agree(cluster: &Cluster, keys: &[String], r: &str) -> bool {
    let agreed = within(PATIENCE, "all nodes agree", async || {
        for key in keys {
            let mut answers = Vec::new();
            for client in &cluster.clients {
                answers.push(client.read(key, r).await?.0);
            }
            if answers.iter().any(|answer| *answer != answers[0]) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    });
    agreed.await.is_ok()
}
