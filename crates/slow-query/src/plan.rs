//! What did PostgreSQL do with a query? The tree of `explain (analyze, buffers, format json)`, from our own server or from
//! another version of PostgreSQL.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// No counter of a plan is larger. A plan that says so was not made by PostgreSQL.
const LARGEST: f64 = 1e15;

/// One node. It tells rows of one loop; its pages and its time hold those of the nodes below.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Node {
    /// `Index Scan`, `Sort`, …
    #[serde(rename = "Node Type")]
    pub kind: String,
    /// What it is for the node above: `Outer`, `Inner`, `SubPlan`, …
    #[serde(rename = "Parent Relationship")]
    pub role: Option<String>,
    #[serde(rename = "Relation Name")]
    table: Option<String>,
    #[serde(rename = "Index Name")]
    index: Option<String>,
    /// Rows of a loop that the planner expected.
    #[serde(rename = "Plan Rows", default)]
    pub estimated: f64,
    /// Rows of a loop that came; nothing if the query was only planned.
    #[serde(rename = "Actual Rows")]
    pub actual: Option<f64>,
    /// How often the node began anew.
    #[serde(rename = "Actual Loops", default)]
    pub loops: f64,
    #[serde(rename = "Actual Total Time", default)]
    milliseconds: f64,
    #[serde(rename = "Rows Removed by Filter", default)]
    filtered: f64,
    #[serde(rename = "Rows Removed by Join Filter", default)]
    not_joined: f64,
    #[serde(rename = "Shared Hit Blocks", default)]
    hit: f64,
    #[serde(rename = "Shared Read Blocks", default)]
    read: f64,
    #[serde(rename = "Temp Read Blocks", default)]
    temp_read: f64,
    #[serde(rename = "Temp Written Blocks", default)]
    temp_written: f64,
    #[serde(rename = "Sort Space Type")]
    sort_space: Option<String>,
    #[serde(rename = "Hash Batches", default)]
    hash_batches: f64,
    #[serde(rename = "HashAgg Batches", default)]
    aggregate_batches: f64,
    /// Each worker reads a part of it. Then a loop is a worker.
    #[serde(rename = "Parallel Aware", default)]
    pub parallel: bool,
    /// The nodes that it asks for rows.
    #[serde(rename = "Plans", default)]
    pub below: Vec<Self>,
}

impl Node {
    /// Rows of a loop.
    pub fn rows(&self) -> f64 {
        self.actual.unwrap_or_default()
    }

    /// Rows that were read and then thrown away, in all loops.
    pub fn removed(&self) -> f64 {
        (self.filtered + self.not_joined) * self.loops
    }

    /// Rows that it looked at, in all loops.
    pub fn touched(&self) -> f64 {
        self.rows() * self.loops + self.removed()
    }

    /// The most rows that one node of this part of the tree looked at.
    pub fn busiest(&self) -> f64 {
        self.below.iter().map(Self::busiest).fold(self.touched(), f64::max)
    }

    /// Pages of tables and indexes, and of temporary files: those that were in memory already, and the others.
    pub fn pages(&self) -> f64 {
        self.hit + self.read + self.temp()
    }

    /// Pages of temporary files.
    pub fn temp(&self) -> f64 {
        self.temp_read + self.temp_written
    }

    /// Pages that were in PostgreSQL's memory, and pages that were not.
    pub fn shared(&self) -> (f64, f64) {
        (self.hit, self.read)
    }

    // ANCHOR: spills
    /// Whether its rows did not fit into `work_mem`. A plan without `buffers` tells it only for sorts and hashes.
    pub fn spills(&self) -> bool {
        let below: f64 = self.below.iter().map(|node| node.temp_written).sum();
        self.temp_written > below
            || self.sort_space.as_deref() == Some("Disk")
            || self.hash_batches > 1.0
            || self.aggregate_batches > 1.0
    }
    // ANCHOR_END: spills

    /// Its own time, without that of the nodes below.
    pub fn own_milliseconds(&self) -> f64 {
        let time = |node: &Self| node.milliseconds * node.loops;
        (time(self) - self.below.iter().map(time).sum::<f64>()).max(0.0)
    }

    /// `Seq Scan on events`, on one line. A plan that was sent to us may hold any text.
    pub fn name(&self) -> String {
        let reads = self.index.iter().chain(&self.table);
        let name = [&self.kind].into_iter().chain(reads).map(String::as_str).collect::<Vec<_>>();
        let name = name.join(" on ");
        name.chars().filter(|letter| edge::text::is_line(&letter.to_string())).take(120).collect()
    }

    /// Itself and all nodes below, each with its depth.
    pub fn steps(&self) -> Vec<(usize, &Self)> {
        let below = self.below.iter().flat_map(Self::steps);
        let below = below.map(|(depth, node)| (depth + 1, node));
        [(0, self)].into_iter().chain(below).collect()
    }

    /// What is wrong with its numbers, or with those of a node below.
    fn fault(&self) -> Option<&'static str> {
        let numbers = [
            self.estimated,
            self.rows(),
            self.loops,
            self.milliseconds,
            self.filtered,
            self.not_joined,
            self.pages(),
        ];
        if self.actual.is_none() {
            return Some("was not run: use `explain (analyze, buffers, format json)`");
        }
        if numbers.iter().any(|number| !(0.0..=LARGEST).contains(number)) {
            return Some("has a number that PostgreSQL would not write");
        }
        self.below.iter().find_map(Self::fault)
    }
}

/// Pages that were read to plan the query. PostgreSQL 13 and later.
#[derive(Clone, Debug, Default, Deserialize)]
struct Planning {
    #[serde(rename = "Shared Hit Blocks", default)]
    hit: f64,
    #[serde(rename = "Shared Read Blocks", default)]
    read: f64,
}

/// A query that was run.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Plan {
    /// The node that returns the rows.
    #[serde(rename = "Plan")]
    pub root: Node,
    /// How long the planner took.
    #[serde(rename = "Planning Time", default)]
    pub planning: f64,
    /// How long the execution took.
    #[serde(rename = "Execution Time", default)]
    pub execution: f64,
    #[serde(rename = "Planning")]
    planning_pages: Option<Planning>,
}

impl Plan {
    /// Pages that were read to plan it, if that is known.
    pub fn planning_pages(&self) -> Option<f64> {
        self.planning_pages.as_ref().map(|pages| pages.hit + pages.read)
    }
}

/// What somebody pasted: the list with one plan that `explain` prints.
#[derive(Clone, Debug)]
pub struct Pasted(pub Plan);

// ANCHOR: pasted
impl<'de> Deserialize<'de> for Pasted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Pasted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the list that `explain (analyze, buffers, format json)` prints")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut plans: A) -> Result<Pasted, A::Error> {
                let plan: Option<Plan> = plans.next_element()?;
                let plan = plan.ok_or_else(|| A::Error::custom("the list is empty"))?;
                if plans.next_element::<Plan>()?.is_some() {
                    return Err(A::Error::custom("must be one plan, not several"));
                }
                match plan.root.fault() {
                    Some(fault) => Err(A::Error::custom(fault)),
                    None => Ok(Pasted(plan)),
                }
            }
        }
        deserializer.deserialize_seq(List)
    }
}
// ANCHOR_END: pasted

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_of_a_later_version_can_be_read() {
        // PostgreSQL 18 counts rows of a loop in hundredths, and adds fields.
        let plan = json!([{
            "Plan": {
                "Node Type": "Index Scan", "Index Name": "i", "Relation Name": "t", "Disabled": false,
                "Plan Rows": 3, "Actual Rows": 2.5, "Actual Loops": 4, "Index Searches": 4, "Actual Total Time": 0.5,
                "Shared Hit Blocks": 7, "Shared Read Blocks": 1, "Rows Removed by Filter": 2,
            },
            "Planning": { "Shared Hit Blocks": 5, "Memory Used": 10 }, "Planning Time": 0.1, "Triggers": [], "Execution Time": 9,
        }]);
        let Pasted(plan) = serde_json::from_value(plan).unwrap();
        assert_eq!((plan.root.touched(), plan.root.pages()), (18.0, 8.0));
        assert_eq!((plan.execution, plan.planning_pages()), (9.0, Some(5.0)));
        assert_eq!(plan.root.name(), "Index Scan on i on t");
    }

    #[test]
    fn what_is_no_plan_that_was_run_is_told() {
        let node =
            |rows: f64| json!({ "Node Type": "Result", "Actual Rows": rows, "Actual Loops": 1 });
        for (list, words) in [
            (json!([]), "empty"),
            (json!([{ "Plan": { "Node Type": "Result" } }]), "was not run"),
            (json!([{ "Plan": node(-1.0) }]), "would not write"),
            (json!([{ "Plan": node(1e300) }]), "would not write"),
            (json!([{ "Plan": node(1.0) }, { "Plan": node(1.0) }]), "several"),
            (json!([{ "query_block": {} }]), "Plan"),
            (json!({ "query_block": {} }), "format json"),
        ] {
            let error = serde_json::from_value::<Pasted>(list).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_node_has_its_own_time_and_its_own_temporary_pages() {
        let sort = Node { temp_written: 5.0, milliseconds: 2.0, loops: 1.0, ..Node::default() };
        let below = vec![sort];
        let top =
            Node { temp_written: 5.0, milliseconds: 7.0, loops: 1.0, below, ..Node::default() };
        assert!(!top.spills() && top.below[0].spills());
        assert!((top.own_milliseconds() - 5.0).abs() < 1e-9);
        assert_eq!(top.steps().iter().map(|(depth, _)| *depth).collect::<Vec<_>>(), [0, 1]);
    }
}
