// caught by: plan::
/// PostgreSQL tells rows and time for one loop, and time with that of the nodes below.
fn visit(node: &Value, depth: usize, nodes: &mut Vec<Node>) {
    let text = |name: &str| node[name].as_str().map(str::to_owned);
    let was_run = node["Actual Rows"].is_number();
    // The mistake: rows and time of one loop are taken for those of all.
    let time = |node: &Value| number(node, "Actual Total Time");
    let own = time(node) - below(node).map(time).sum::<f64>();
    nodes.push(Node {
        kind: text("Node Type").unwrap_or_default(),
        reads: text("Index Name").or_else(|| text("Relation Name")),
        depth,
        estimated: number(node, "Plan Rows"),
        actual: was_run.then(|| number(node, "Actual Rows")),
        milliseconds: own.max(0.0),
        share: 0.0,
    });
    for node in below(node) {
        visit(node, depth + 1, nodes);
    }
}
