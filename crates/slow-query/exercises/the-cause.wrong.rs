// caught by: finding::
/// A part that is done again and again, for each row of the outer side, or for each row that a subquery is asked about. If the
/// planner expected far fewer rows, that is the cause: with a right estimate it would have joined in another way.
fn again(node: &Node, below: &Node) -> Option<Finding> {
    let (loops, waste, name) = (below.loops, below.busiest(), below.name());
    let inner = node.kind == "Nested Loop" && below.role.as_deref() == Some("Inner");
    let of_subquery = below.role.as_deref() == Some("SubPlan");
    if !(inner || of_subquery) || below.parallel || loops < OFTEN || waste < FEW {
        return None;
    }
    // The mistake: it never asks what the planner expected. The reader rewrites the query, and the estimate stays wrong.
    let words = format!("{name} was done {loops:.0} times, for {waste:.0} rows in all. Do it once, or give it an index");
    Some(finding(Kind::Loops, below, waste, words))
}
