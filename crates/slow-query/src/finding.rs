//! Why is this query slow? Findings in words, the worst first.

use serde::{Deserialize, Serialize};

use crate::plan::{Node, Plan};
use crate::waits::Waits;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It waits for somebody else. No index helps.
    Waits,
    /// The planner expected a tenth of the rows, or ten times as many, and chose the wrong way.
    Misestimate,
    /// A part is done again for each row of another part.
    Loops,
    /// A whole table is read to keep a few rows.
    FullScan,
    /// Rows are fetched by an index, or joined, or skipped, and then thrown away.
    Discards,
    /// Rows did not fit into memory.
    Spills,
    /// The planner takes longer than the query.
    Planning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// For people.
    pub words: String,
    /// Where in the plan.
    pub node: String,
    /// Rows that a better plan would not have to look at, roughly. It makes findings of different kinds comparable.
    pub waste: f64,
}

/// Fewer rows are no reason to do anything.
const FEW: f64 = 1_000.0;
/// An estimate that is wrong by this factor misleads the planner; and a filter that keeps less than one of so many discards most.
const TENFOLD: f64 = 10.0;
/// A part that is done again this often.
const OFTEN: f64 = 10.0;
/// Planning below this is no complaint, in milliseconds and in pages. A new session reads some hundred pages of the catalogue.
const PLANNING: (f64, f64) = (20.0, 1_000.0);
/// With this many joins there are so many orders that planning takes long, though it reads little.
const MANY_JOINS: usize = 8;

// ANCHOR: findings
/// What is wrong with this query; of each kind only the worst.
pub fn findings(plan: &Plan, waits: &Waits) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(planning(plan));
    examine(&plan.root, Place::default(), &mut found);
    found.sort_by(|a, b| b.waste.total_cmp(&a.waste));
    // A query that waits does no work, so waiting comes before all findings in the plan.
    let mut worst: Vec<Finding> = waiting(waits).into_iter().collect();
    for finding in found {
        if worst.iter().all(|it| it.kind != finding.kind) {
            worst.push(finding);
        }
    }
    worst
}
// ANCHOR_END: findings

/// What the nodes above say about a node.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Somebody above stops when there are enough rows, so fewer rows than estimated say nothing.
    may_stop: bool,
    /// It is done again for each row of another part, and that is a finding already.
    again: bool,
}

fn examine(node: &Node, place: Place, found: &mut Vec<Finding>) {
    if node.loops == 0.0 {
        return;
    }
    if !place.again {
        found.extend(full_scan(node).or_else(|| discards(node)).or_else(|| skipped(node)));
        found.extend(spills(node));
        found.extend(misestimate(node, place));
    }
    let stops = ["Limit", "Merge Join", "Nested Loop"].contains(&&*node.kind);
    for below in &node.below {
        let again = again(node, below);
        let may_stop = place.may_stop || stops || below.role.as_deref() == Some("SubPlan");
        let place = Place { may_stop, again: place.again || again.is_some() };
        found.extend(again);
        examine(below, place, found);
    }
}

fn finding(kind: Kind, node: &Node, waste: f64, words: String) -> Finding {
    Finding { kind, words, node: node.name(), waste }
}

// ANCHOR: again
/// A part that is done again and again, for each row of the outer side, or for each row that a subquery is asked about. If the
/// planner expected far fewer rows, that is the cause: with a right estimate it would have joined in another way.
fn again(node: &Node, below: &Node) -> Option<Finding> {
    let (loops, waste, name) = (below.loops, below.busiest(), below.name());
    let inner = node.kind == "Nested Loop" && below.role.as_deref() == Some("Inner");
    let of_subquery = below.role.as_deref() == Some("SubPlan");
    if !(inner || of_subquery) || below.parallel || loops < OFTEN || waste < FEW {
        return None;
    }
    let outer = node.below.first().filter(|_| inner);
    let expected =
        outer.map_or(f64::INFINITY, |outer| outer.estimated * outer.loops.max(1.0)).max(1.0);
    if loops >= expected * TENFOLD {
        let words = format!(
            "{name} was done {loops:.0} times, and the planner expected {expected:.0}: its estimate for the other side of the \
             join is wrong. Are the statistics old, or do the columns of its filter depend on each other?"
        );
        return Some(finding(Kind::Misestimate, below, waste, words));
    }
    let words = format!(
        "{name} was done {loops:.0} times, for {waste:.0} rows in all. Do it once, or give it an index"
    );
    // A search by index for each row is what an index is for.
    (waste >= loops * TENFOLD).then(|| finding(Kind::Loops, below, waste, words))
}
// ANCHOR_END: again

// ANCHOR: filters
/// The filter keeps less than a tenth.
fn keeps_few(node: &Node) -> bool {
    let removed = node.removed();
    removed >= FEW && removed >= (TENFOLD - 1.0) * node.rows() * node.loops
}

fn full_scan(node: &Node) -> Option<Finding> {
    let (all, kept) = (node.touched(), node.rows() * node.loops);
    let words = format!(
        "{} reads {all:.0} rows and keeps {kept:.0}. An index on what the filter compares would find them",
        node.name()
    );
    let is = node.kind == "Seq Scan" && keeps_few(node);
    is.then(|| finding(Kind::FullScan, node, node.removed(), words))
}

fn discards(node: &Node) -> Option<Finding> {
    let (all, kept) = (node.touched(), node.rows() * node.loops);
    let words = format!(
        "{} fetches {all:.0} rows and throws all but {kept:.0} away. An index that begins with the column of the filter would \
         not fetch them",
        node.name()
    );
    keeps_few(node).then(|| finding(Kind::Discards, node, node.removed(), words))
}

/// `offset` has the rows made, and skips them.
fn skipped(node: &Node) -> Option<Finding> {
    let made = node.below.first().filter(|_| node.kind == "Limit")?;
    let (all, kept) = (made.rows() * made.loops, node.rows() * node.loops);
    let words = format!(
        "{} skips {:.0} rows to return {kept:.0}. Begin after the last row of the page before, by its key",
        node.name(),
        all - kept
    );
    let is = all - kept >= FEW && all >= kept * TENFOLD;
    is.then(|| finding(Kind::Discards, node, all - kept, words))
}
// ANCHOR_END: filters

fn spills(node: &Node) -> Option<Finding> {
    let (rows, temp) = (node.rows(), node.temp());
    let words = format!(
        "{} did not fit into work_mem: {rows:.0} rows, {temp:.0} temporary pages. Give this query more memory, or fewer rows",
        node.name()
    );
    node.spills().then(|| finding(Kind::Spills, node, rows, words))
}

// ANCHOR: misestimate
/// Where the estimate went wrong: in this node, and in none below. A node that was stopped early came to fewer rows than it
/// has.
fn misestimate(node: &Node, place: Place) -> Option<Finding> {
    let off = |node: &Node| {
        let (expected, came) = (node.estimated.max(1.0), node.rows().max(1.0));
        came >= expected * TENFOLD || !place.may_stop && expected >= came * TENFOLD
    };
    let (expected, came) = (node.estimated, node.rows());
    let is = off(node) && expected.max(came) >= FEW && !node.below.iter().any(off);
    let words = format!(
        "{} was expected to return {expected:.0} rows, and returned {came:.0}",
        node.name()
    );
    is.then(|| finding(Kind::Misestimate, node, (expected - came).abs(), words))
}
// ANCHOR_END: misestimate

/// The plan does not say that it waited, so there is no node to name.
fn waiting(waits: &Waits) -> Option<Finding> {
    let who = waits.blocker.as_ref().map(|blocker| {
        let state = blocker.state.as_deref().unwrap_or("in an unknown state");
        let seconds = blocker.seconds.unwrap_or_default();
        format!(
            " Process {} holds the lock; it is {state}, in a transaction of {seconds:.1} s",
            blocker.pid
        )
    });
    let words = format!(
        "It waited for a lock at {} of {} looks.{}",
        waits.waiting,
        waits.looks,
        who.unwrap_or_default()
    );
    let node = String::new();
    waits.mostly().then_some(Finding { kind: Kind::Waits, words, node, waste: 0.0 })
}

fn planning(plan: &Plan) -> Option<Finding> {
    let (planning, execution) = (plan.planning, plan.execution);
    let words = format!(
        "The planner took {planning:.0} ms, and the query {execution:.0} ms. Are there many partitions, or many joins?"
    );
    let (milliseconds, pages) = PLANNING;
    let join = |node: &Node| node.kind == "Nested Loop" || node.kind.ends_with(" Join");
    let joins = || plan.root.steps().into_iter().filter(|(_, node)| join(node)).count();
    // A healthy query on a busy machine may be planned slowly too. It has neither.
    let much = || plan.planning_pages().is_none_or(|read| read >= pages) || joins() >= MANY_JOINS;
    let is = planning > execution && planning >= milliseconds && much();
    is.then(|| finding(Kind::Planning, &plan.root, plan.planning_pages().unwrap_or(FEW), words))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{plan::Pasted, waits::Blocker};

    fn kinds(root: Value) -> Vec<Kind> {
        let mut plan = json!([{ "Planning Time": 30, "Execution Time": 40 }]);
        plan[0]["Plan"] = root;
        let Pasted(plan) = serde_json::from_value(plan).unwrap();
        findings(&plan, &Waits::default()).iter().map(|it| it.kind).collect()
    }

    fn node(kind: &str, rows: f64, estimated: f64, more: Value) -> Value {
        let mut node = json!({ "Node Type": kind, "Actual Rows": rows, "Plan Rows": estimated, "Actual Loops": 1 });
        if let Value::Object(more) = more {
            node.as_object_mut().unwrap().extend(more);
        }
        node
    }

    fn nested(outer: Value, mut inner: Value, loops: u32) -> Value {
        inner["Parent Relationship"] = "Inner".into();
        inner["Actual Loops"] = loops.into();
        let plans = vec![outer, inner];
        node("Nested Loop", 5.0, 5.0, json!({ "Plans": plans }))
    }

    #[test]
    fn a_scan_that_keeps_few_rows_is_found_and_one_that_keeps_many_or_reads_few_is_not() {
        let scan = |kept: f64, removed: f64| {
            kinds(node("Seq Scan", kept, kept, json!({ "Rows Removed by Filter": removed })))
        };
        assert_eq!(scan(1_000.0, 9_000.0), [Kind::FullScan]);
        assert!(scan(1_001.0, 9_000.0).is_empty());
        assert!(scan(0.0, 999.0).is_empty());
        let by_index = node("Index Scan", 20.0, 20.0, json!({ "Rows Removed by Filter": 9_000 }));
        assert_eq!(kinds(by_index), [Kind::Discards]);
    }

    #[test]
    fn an_offset_throws_rows_away_and_a_limit_does_not() {
        let limit = |made: f64| {
            let below = node("Index Scan", made, 200_000.0, json!({}));
            kinds(node("Limit", 20.0, 20.0, json!({ "Plans": [below] })))
        };
        assert_eq!(limit(15_020.0), [Kind::Discards]);
        assert!(limit(20.0).is_empty());
    }

    #[test]
    fn loops_are_the_cause_if_they_were_expected_and_the_estimate_if_not() {
        let scan = || node("Seq Scan", 10.0, 10.0, json!({ "Rows Removed by Filter": 5_000 }));
        let outer = |estimated: f64| node("Seq Scan", 100.0, estimated, json!({}));
        assert_eq!(kinds(nested(outer(100.0), scan(), 100)), [Kind::Loops]);
        assert_eq!(kinds(nested(outer(1.0), scan(), 100)), [Kind::Misestimate]);
        let search = || node("Index Scan", 1.0, 1.0, json!({}));
        assert!(kinds(nested(outer(100.0), search(), 5_000)).contains(&Kind::Misestimate));
        let many = node("Seq Scan", 5_000.0, 5_000.0, json!({}));
        assert!(kinds(nested(many, search(), 5_000)).is_empty());
    }

    #[test]
    fn a_subquery_that_is_run_for_each_row_is_found() {
        let more = json!({ "Parent Relationship": "SubPlan", "Actual Loops": 30, "Rows Removed by Filter": 5_000 });
        let below = node("Seq Scan", 10.0, 10.0, more);
        assert_eq!(
            kinds(node("Index Scan", 30.0, 30.0, json!({ "Plans": [below] }))),
            [Kind::Loops]
        );
    }

    #[test]
    fn a_wrong_estimate_is_told_where_it_began() {
        let scan = |came: f64, expected: f64| node("Seq Scan", came, expected, json!({}));
        assert_eq!(kinds(scan(10_000.0, 10.0)), [Kind::Misestimate]);
        assert_eq!(kinds(scan(10.0, 10_000.0)), [Kind::Misestimate]);
        assert!(kinds(scan(999.0, 1.0)).is_empty());
        let limit = |below| kinds(node("Limit", 10.0, 10.0, json!({ "Plans": [below] })));
        assert!(limit(scan(10.0, 10_000.0)).is_empty());
        let sort = node("Sort", 10_000.0, 10.0, json!({ "Plans": [scan(10_000.0, 10.0)] }));
        let Pasted(plan) = serde_json::from_value(json!([{ "Plan": sort }])).unwrap();
        let found = findings(&plan, &Waits::default());
        assert_eq!(found.iter().map(|it| &*it.node).collect::<Vec<_>>(), ["Seq Scan"]);
    }

    #[test]
    fn what_does_not_fit_into_memory_is_found_with_and_without_buffers() {
        for more in [
            json!({ "Sort Space Type": "Disk" }),
            json!({ "Temp Written Blocks": 7 }),
            json!({ "Hash Batches": 8 }),
            json!({ "HashAgg Batches": 5 }),
        ] {
            assert_eq!(kinds(node("Sort", 5_000.0, 5_000.0, more)), [Kind::Spills]);
        }
        let in_memory = json!({ "Sort Space Type": "Memory", "Hash Batches": 1 });
        assert!(kinds(node("Sort", 5_000.0, 5_000.0, in_memory)).is_empty());
    }

    #[test]
    fn the_worst_comes_first_and_waiting_before_all() {
        let small = node("Seq Scan", 10.0, 10.0, json!({ "Rows Removed by Filter": 2_000 }));
        let sort =
            node("Sort", 9_000.0, 9_000.0, json!({ "Sort Space Type": "Disk", "Plans": [small] }));
        let Pasted(plan) = serde_json::from_value(json!([{ "Plan": sort }])).unwrap();
        let mut waits = Waits::default();
        let first =
            |waits: &Waits| findings(&plan, waits).iter().map(|it| it.kind).collect::<Vec<_>>();
        assert_eq!(first(&waits), [Kind::Spills, Kind::FullScan]);
        for _ in 0..2 {
            waits.note(Some(Blocker {
                pid: 7,
                state: Some("idle in transaction".to_owned()),
                seconds: Some(2.0),
            }));
        }
        assert_eq!(first(&waits)[0], Kind::Waits);
        assert!(findings(&plan, &waits)[0].words.contains("Process 7"));
    }

    #[test]
    fn planning_is_found_if_it_takes_longer_and_reads_much() {
        let planned = |planning: f64, pages: Option<f64>| {
            let mut plan = json!([{
                "Plan": node("Append", 1.0, 1.0, json!({})), "Planning Time": planning, "Execution Time": 5,
            }]);
            if let Some(pages) = pages {
                plan[0]["Planning"] = json!({ "Shared Hit Blocks": pages });
            }
            let Pasted(plan) = serde_json::from_value(plan).unwrap();
            findings(&plan, &Waits::default()).len()
        };
        assert_eq!((planned(30.0, None), planned(30.0, Some(5_000.0))), (1, 1));
        assert_eq!(
            (planned(30.0, Some(100.0)), planned(4.0, None), planned(19.0, None)),
            (0, 0, 0)
        );
    }

    #[test]
    fn planning_is_found_if_there_are_many_joins_though_it_reads_little() {
        let planned = |joins: u32| {
            let scan = || node("Index Scan", 1.0, 1.0, json!({}));
            let join = |outer: Value, _| {
                let plans = vec![outer, scan()];
                node("Hash Join", 1.0, 1.0, json!({ "Plans": plans }))
            };
            let root = (0..joins).fold(scan(), join);
            let plan = json!([{
                "Plan": root, "Planning": { "Shared Hit Blocks": 100 }, "Planning Time": 30, "Execution Time": 5,
            }]);
            let Pasted(plan) = serde_json::from_value(plan).unwrap();
            findings(&plan, &Waits::default()).len()
        };
        assert_eq!((planned(7), planned(8)), (0, 1));
    }
}
