//! Is a database CP or AP? One network is cut, and the same nodes answer one request and refuse the next: it depends on
//! what the request asks for.

use lab::{Experiment, Lab, NoOptions, Sabotage};

use super::{fixture::Cluster, recording::Recording};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "per-operation",
        "The choice is made per operation: of one store with a cut network, the node that is alone answers r=1 (with an \
         old value) and w=1, and refuses a quorum; the majority answers a quorum, and refuses all",
        &[],
        run,
    )
    .sabotage(Sabotage {
        file: "src/coordinator.rs",
        replace: "return Err(Error::TooFew { got: answers.len(), needed });",
        with: "break;",
        check: "the node that is alone: GET r=quorum&kind=lww",
    })
}

const KEY: &str = "key";
/// The node that is alone.
const ALONE: usize = 0;
/// A node of the majority.
const MAJORITY: usize = 1;

/// A request, and the statuses that it gets from the node that is alone and from the majority.
const REQUESTS: [(&str, &str, u16, u16); 8] = [
    ("GET", "r=1&kind=lww", 200, 200),
    ("GET", "r=quorum&kind=lww", 503, 200),
    ("GET", "r=all&kind=lww", 503, 503),
    ("GET", "kind=atomic", 503, 200),
    ("PUT", "w=1&kind=siblings", 200, 200),
    ("PUT", "w=quorum&kind=siblings", 503, 200),
    ("PUT", "w=all&kind=siblings", 503, 503),
    ("PUT", "kind=atomic", 503, 200),
];

async fn run(NoOptions {}: NoOptions, lab: Lab) -> anyhow::Result<()> {
    let cluster = Cluster::three().await?;
    let recording = Recording::default();
    let [alone, majority] = [ALONE, MAJORITY].map(|node| &cluster.clients[node]);
    for query in ["w=all&kind=lww", "kind=atomic"] {
        recording.write(0, alone, KEY, query, "old").await?;
    }
    cluster.isolate(ALONE);
    for query in ["w=quorum&kind=lww", "kind=atomic"] {
        let status = recording.write(0, majority, KEY, query, "new").await?.status;
        lab.check_eq(format!("the majority: a new value with {query}"), 200, status);
    }
    let stale = recording.read(1, alone, KEY, "r=1&kind=lww").await?.value.unwrap_or_default();
    lab.check_eq("the node that is alone: the value that it reads with r=1", "old", stale.as_str());
    let newest = recording.read(2, majority, KEY, "r=quorum&kind=lww").await?.value;
    let newest = newest.unwrap_or_default();
    lab.check_eq("the majority: the value that it reads with r=quorum", "new", newest.as_str());
    let mut rows = Vec::new();
    for (method, query, expected_alone, expected_majority) in REQUESTS {
        let mut row = vec![format!("{method} {query}")];
        for (side, node, expected) in [
            ("the node that is alone", alone, expected_alone),
            ("the majority", majority, expected_majority),
        ] {
            let seen = match method {
                "GET" => recording.read(1, node, KEY, query).await?,
                _ => recording.write(1, node, &format!("of {side}"), query, "v").await?,
            };
            lab.check_eq(format!("{side}: {method} {query}"), expected, seen.status);
            row.push(seen.status.to_string());
        }
        rows.push(row);
    }
    lab.table("One cut network", &["request", "the node that is alone", "the majority"], rows);
    cluster.heal().await?;
    let healed = alone.read(KEY, "r=quorum&kind=lww").await?.0.concat();
    lab.check_eq(
        "after healing: the value that the node reads that was alone",
        "new",
        healed.as_str(),
    );
    Ok(())
}
