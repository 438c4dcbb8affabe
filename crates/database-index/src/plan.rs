//! What does the planner do with a query? A tree of nodes, as `explain (format json)` tells it.

use serde::Serialize;
use serde_json::Value;

/// One node, after the node that asks it for rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// `Index Scan`, `Sort`, …
    pub kind: String,
    /// The index or the table that it reads.
    pub reads: Option<String>,
    /// How far below the root.
    pub depth: usize,
    /// Rows that the planner expects, in all loops.
    pub estimated: f64,
    /// Rows that came; nothing if it was not run.
    pub actual: Option<f64>,
    /// Its own time, without that of the nodes below.
    pub milliseconds: f64,
    /// Its part of the whole time.
    pub share: f64,
}

/// A plan.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Plan(pub Value);

impl Plan {
    /// Every node, the root first.
    pub fn nodes(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        visit(&self.0[0]["Plan"], 0, &mut nodes);
        let whole: f64 = nodes.iter().map(|node| node.milliseconds).sum();
        for node in &mut nodes {
            node.share = if whole > 0.0 { node.milliseconds / whole } else { 0.0 };
        }
        nodes
    }

    /// A number of the root: `Total Cost`, `Actual Rows`, `Shared Hit Blocks`.
    pub fn number(&self, name: &str) -> f64 {
        number(&self.0[0]["Plan"], name)
    }

    /// How long it took, with planning.
    pub fn milliseconds(&self) -> f64 {
        number(&self.0[0], "Planning Time") + number(&self.0[0], "Execution Time")
    }
}

fn number(node: &Value, name: &str) -> f64 {
    node[name].as_f64().unwrap_or_default()
}

fn below(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

// ANCHOR: visit
/// PostgreSQL tells rows and time for one loop, and time with that of the nodes below.
fn visit(node: &Value, depth: usize, nodes: &mut Vec<Node>) {
    let text = |name: &str| node[name].as_str().map(str::to_owned);
    let was_run = node["Actual Rows"].is_number();
    let loops = if was_run { number(node, "Actual Loops") } else { 1.0 };
    let time = |node: &Value| number(node, "Actual Total Time") * number(node, "Actual Loops");
    let own = time(node) - below(node).map(time).sum::<f64>();
    nodes.push(Node {
        kind: text("Node Type").unwrap_or_default(),
        reads: text("Index Name").or_else(|| text("Relation Name")),
        depth,
        estimated: number(node, "Plan Rows") * loops,
        actual: was_run.then(|| number(node, "Actual Rows") * loops),
        milliseconds: own.max(0.0),
        share: 0.0,
    });
    for node in below(node) {
        visit(node, depth + 1, nodes);
    }
}
// ANCHOR_END: visit

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_has_its_own_time_and_the_rows_of_all_loops() {
        let plan = Plan(json!([{
            "Planning Time": 0.5, "Execution Time": 4.5,
            "Plan": {
                "Node Type": "Nested Loop", "Plan Rows": 10, "Actual Rows": 12, "Actual Loops": 1,
                "Actual Total Time": 4.0, "Shared Hit Blocks": 7, "Shared Read Blocks": 1,
                "Plans": [{
                    "Node Type": "Index Only Scan", "Index Name": "idx", "Plan Rows": 1,
                    "Actual Rows": 2, "Actual Loops": 6, "Actual Total Time": 0.5,
                }],
            },
        }]));
        let nodes = plan.nodes();
        assert_eq!(nodes.iter().map(|it| it.milliseconds).collect::<Vec<_>>(), [1.0, 3.0]);
        assert_eq!((nodes[1].actual, nodes[1].estimated, nodes[1].share), (Some(12.0), 6.0, 0.75));
        assert_eq!((plan.number("Shared Hit Blocks"), plan.milliseconds()), (7.0, 5.0));
    }
}
