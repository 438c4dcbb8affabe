//! Who wrote last? A node whose clock is fast says: I did.

use lab::{Experiment, Lab, Sabotage};
use serde_json::json;

use super::fixture::Cluster;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Keys, each written twice
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    keys: u64,
    /// Seconds that one node's clock is ahead
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(60..=1_000_000))]
    ahead: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "clocks",
        "If one node's clock is ahead, last-writer-wins drops later writes that it has acknowledged. Version vectors drop \
         none. Hybrid logical clocks drop none that a node has seen, and do not help where it has not",
        &["--keys", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/clock.rs",
        replace: "let floor = if self.hybrid { known } else { 0 };",
        with: "let floor = known.min(0);",
        check: "hybrid clocks: later writes that vanished",
    })
}

/// The node with the fast clock, and one with a right clock.
const FAST: usize = 1;
const RIGHT: usize = 0;

/// How the keys are written.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that is tried")]
struct Way {
    name: &'static str,
    kind: &'static str,
    hybrid: bool,
    /// The second writer cannot reach the node of the first one.
    cut: bool,
    /// The second writer sends the context of what it has read.
    reads_first: bool,
    /// Whether the second write is to vanish.
    vanishes: bool,
}

const WAYS: [Way; 5] = [
    Way {
        name: "clocks",
        kind: "lww",
        hybrid: false,
        cut: false,
        reads_first: false,
        vanishes: true,
    },
    Way {
        name: "version vectors",
        kind: "siblings",
        hybrid: false,
        cut: false,
        reads_first: true,
        vanishes: false,
    },
    Way {
        name: "version vectors, blind",
        kind: "siblings",
        hybrid: false,
        cut: false,
        reads_first: false,
        vanishes: false,
    },
    Way {
        name: "hybrid clocks",
        kind: "lww",
        hybrid: true,
        cut: false,
        reads_first: false,
        vanishes: false,
    },
    Way {
        name: "hybrid clocks, cut off",
        kind: "lww",
        hybrid: true,
        cut: true,
        reads_first: false,
        vanishes: true,
    },
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let ahead = (params.ahead * 1_000).to_string();
    let mut rows = Vec::new();
    for (step, way) in (0..).zip(&WAYS) {
        lab.progress(step, 5, way.name);
        let mut options = [vec![], vec!["--clock-ahead-ms", ahead.as_str()], vec![]];
        if way.hybrid {
            for option in &mut options {
                option.push("--hybrid-clock");
            }
        }
        let options: Vec<_> = options.iter().map(Vec::as_slice).collect();
        let cluster = Cluster::start(&options).await?;
        let (acknowledged, vanished) = write_twice(&cluster, way, params.keys).await?;
        let name = format!("{}: later writes that were acknowledged", way.name);
        lab.check_eq(name, params.keys, acknowledged);
        let name = format!("{}: later writes that vanished", way.name);
        lab.check_eq(name, if way.vanishes { params.keys } else { 0 }, vanished);
        rows.push(vec![way.name.to_owned(), acknowledged.to_string(), vanished.to_string()]);
    }
    let columns = ["ordered by", "later writes that were acknowledged", "of these, vanished"];
    lab.table(format!("One clock is {} s ahead", params.ahead), &columns, rows);
    Ok(())
}

/// Writes each key through the node with the fast clock, and when that has ended, through the other one. Returns how many
/// of the second writes were acknowledged, and how many of their values nobody can read.
async fn write_twice(cluster: &Cluster, way: &Way, keys: u64) -> anyhow::Result<(u64, u64)> {
    if way.cut {
        cluster.isolate(FAST);
    }
    let level = if way.cut { "1" } else { "all" };
    let [w, r] = ["w", "r"].map(|it| format!("{it}={level}&kind={}", way.kind));
    let mut acknowledged = 0;
    for key in (0..keys).map(|n| format!("key-{n}")) {
        cluster.clients[FAST].write(&key, &w, "first", None).await?;
        let mut context = None;
        if way.reads_first {
            context = Some(cluster.clients[RIGHT].read(&key, &r).await?.1);
        }
        let mut body = json!({ "value": "second" });
        if let Some(context) = context {
            body["context"] = context.into();
        }
        let answer = cluster.clients[RIGHT].put(&key, &w, &body).await?;
        acknowledged += u64::from(answer.status() == 200);
    }
    if way.cut {
        cluster.heal().await?;
    }
    let mut vanished = 0;
    for key in (0..keys).map(|n| format!("key-{n}")) {
        let (values, _) =
            cluster.clients[RIGHT].read(&key, &format!("r=all&kind={}", way.kind)).await?;
        vanished += u64::from(!values.iter().any(|value| value == "second"));
    }
    Ok((acknowledged, vanished))
}
