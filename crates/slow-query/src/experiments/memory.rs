//! What happens to a sort or a hash that does not fit into memory, and what does more memory cost?

use conform::expect::json_of;
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};

use super::{Rows, fixture::Fixture, try_out};
use crate::cases::client::{Client, found};
use crate::store::{execute, explain_with};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "memory",
        "A sort or a hash that does not fit into work_mem writes its rows to temporary files and reads them again. More work_mem ends \
         that; in memory the same rows need more room than on disk, and each sort of each connection may take it",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: "set local work_mem = '64MB'",
        with: "set local work_mem = '64kB'",
        check: "what more-memory does for big-sort",
    })
    .sabotage(Sabotage {
        file: "src/plan.rs",
        replace: "self.hash_batches > 1.0",
        with: "self.hash_batches > 1e9",
        check: "the first finding for a hash join that spills, without its buffers",
    })
}

const TITLE: &str = "The same sort with more and more work_mem";
const AXES: (&str, &str) = ("work_mem, kB", "temporary pages");
const SORT: &str = "select id, url from events where id <= 20000 order by url, id";
/// Connections of a usual server.
const CONNECTIONS: f64 = 100.0;

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let first = found(&client.diagnose("big-sort").await?).into_iter().next().unwrap_or_default();
    lab.check_eq("the first finding for big-sort", "spills".to_owned(), first);
    let remedies = [
        ("big-sort", "more-memory", "helps"),
        ("big-sort", "unsorted", "changes_the_answer"),
        ("distinct-urls", "more-memory", "helps"),
        ("distinct-urls", "index-url", "helps"),
    ];
    try_out(&lab, &client, "A sort and groups that spill", &remedies).await?;
    let (mut temps, mut spaces, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for kilobytes in [64, 256, 1_024, 4_096, 16_384] {
        let settings = format!("set local work_mem = '{kilobytes}kB'");
        let plan = fixture.explain(&settings, SORT).await?;
        let number = |name: &str| plan["Plan"][name].as_f64().unwrap_or_default();
        temps.push(number("Temp Written Blocks") + number("Temp Read Blocks"));
        times.push(number("Actual Total Time"));
        spaces.push((plan["Plan"]["Sort Space Type"] == "Disk", number("Sort Space Used")));
        lab.point(TITLE, AXES, "temporary pages", (f64::from(kilobytes), temps[temps.len() - 1]));
    }
    let (least, most) = (temps[0], temps[temps.len() - 1]);
    lab.check("temporary pages with 64 kB", "more than 100", least, least > 100.0);
    lab.check_eq("temporary pages with 16 MB", 0.0, most);
    let on_disk = spaces.iter().find(|(disk, _)| *disk).map_or(f64::NAN, |(_, space)| *space);
    let in_memory = spaces.iter().rfind(|(disk, _)| !disk).map_or(f64::NAN, |(_, space)| *space);
    let check = "room for the rows in memory ÷ on disk";
    let ratio = in_memory / on_disk;
    lab.check(check, "more than 1", ratio, ratio > 1.0);
    let megabytes = in_memory * CONNECTIONS / 1_024.0;
    let slower = times[0] / times[times.len() - 1];
    lab.figure("time of the sort: with 64 kB ÷ with 16 MB, temporary files in memory", slower, "");
    lab.figure("one such sort on each of a hundred connections", megabytes, "MiB");
    hashed(&lab, &fixture, &client).await
}

const TITLE_OF_HASH: &str = "The same hash join with more and more work_mem";
const JOIN: &str = "select count(*), max(u.name) from events e join users u on u.id = e.user_id";
/// How PostgreSQL has to join, and that a hash gets no more memory than a sort.
const BY_HASH: &str = "set local enable_mergejoin = off; set local enable_nestloop = off; set local hash_mem_multiplier = 1";

/// The node that fills the hash table.
fn hash(node: &Value) -> Option<&Value> {
    if node["Node Type"] == "Hash" {
        return Some(node);
    }
    node["Plans"].as_array()?.iter().find_map(hash)
}

/// A join whose hash table is too large: PostgreSQL splits both sides into batches, and all but the first one go to disk.
async fn hashed(lab: &Lab, fixture: &Fixture, client: &Client) -> anyhow::Result<()> {
    let (mut batches, mut temps) = (Vec::new(), Vec::new());
    for kilobytes in [64, 256, 1_024, 4_096, 16_384] {
        let settings = format!("{BY_HASH}; set local work_mem = '{kilobytes}kB'");
        let plan = fixture.explain(&settings, JOIN).await?;
        let number = |node: &Value, name: &str| node[name].as_f64().unwrap_or_default();
        let root = &plan["Plan"];
        batches.push(hash(root).map_or(0.0, |node| number(node, "Hash Batches")));
        let temp = number(root, "Temp Written Blocks") + number(root, "Temp Read Blocks");
        temps.push(temp);
        lab.point(TITLE_OF_HASH, AXES, "temporary pages", (f64::from(kilobytes), temp));
    }
    let (least, most) = (0, batches.len() - 1);
    let check = "a hash join: batches with 64 kB";
    lab.check(check, "more than 1", batches[least], batches[least] > 1.0);
    let check = "a hash join: temporary pages with 64 kB";
    lab.check(check, "more than 100", temps[least], temps[least] > 100.0);
    lab.check_eq("a hash join: batches with 16 MB", 1.0, batches[most]);
    lab.check_eq("a hash join: temporary pages with 16 MB", 0.0, temps[most]);
    // A plan that somebody pastes may lack its buffers. Then only the batches tell.
    let mut tx = fixture.pool.begin().await?;
    let session = include_str!("../store/session.sql");
    execute(&mut tx, &format!("{session}; {BY_HASH}; set local work_mem = '64kB'")).await?;
    let plan = explain_with(&mut tx, "analyze, buffers off", JOIN).await?;
    tx.rollback().await?;
    let answer = client.target.post("diagnosis", &json!({ "plan": plan })).await?;
    let first = found(&json_of(answer, 200).await?).into_iter().next().unwrap_or_default();
    let check = "the first finding for a hash join that spills, without its buffers";
    lab.check_eq(check, "spills".to_owned(), first);
    Ok(())
}
