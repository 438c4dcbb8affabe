//! How does a plan look? A box for each node, below the one that asks it for rows, with a bar for its part of the time.

use crate::plan::Node;

const ROW: usize = 64;
const INDENT: usize = 36;
const WIDTH: usize = 640;

// ANCHOR: drawing
/// The plan as SVG. The planner's estimate stands beside what came: where they differ tenfold, its choice is doubtful, and
/// the line is red.
pub fn draw(nodes: &[Node]) -> String {
    let deepest = nodes.iter().map(|node| node.depth).max().unwrap_or_default();
    let (width, height) = (WIDTH + INDENT * deepest + 20, ROW * nodes.len() + 10);
    let boxes: String = nodes.iter().enumerate().map(|(row, node)| boxed(row, node)).collect();
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="14"><title>Plan</title><rect width="{width}" height="{height}" fill="#fff"/>{boxes}</svg>"##
    )
}
// ANCHOR_END: drawing

fn boxed(row: usize, node: &Node) -> String {
    let (x, y, bar) = (10 + INDENT * node.depth, 10 + ROW * row, node.share * WIDTH as f64);
    let reads = node.reads.as_deref().map(|it| format!(" on {it}")).unwrap_or_default();
    // A name of an index may hold whatever its maker typed.
    let head = format!("{}{reads}", node.kind).replace('&', "&amp;").replace('<', "&lt;");
    let actual = node.actual.map_or("it was not run".to_owned(), |it| format!("{it:.0} came"));
    let off = node.actual.map_or(1.0, |it| it.max(1.0) / node.estimated.max(1.0));
    let color = if (0.1..=10.0).contains(&off) { "#333" } else { "#c00" };
    let time = format!("{:.3} ms, {:.0} % of the time", node.milliseconds, node.share * 100.0);
    let (left, middle, low, under) = (x + 8, y + 20, y + 38, y + 45);
    format!(
        r##"<rect x="{x}" y="{y}" width="{WIDTH}" height="50" rx="4" fill="#f4f4f4" stroke="#888"/><rect x="{x}" y="{under}" width="{bar:.1}" height="5" fill="#2563eb"/><text x="{left}" y="{middle}" font-weight="bold">{head}</text><text x="{left}" y="{low}" fill="{color}">rows: {:.0} estimated, {actual}; {time}</text>"##,
        node.estimated
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(kind: &str, depth: usize, estimated: f64, actual: Option<f64>) -> Node {
        let (reads, milliseconds, share) = (Some("<b>".to_owned()), 1.0, 0.5);
        Node { kind: kind.to_owned(), reads, depth, estimated, actual, milliseconds, share }
    }

    #[test]
    fn a_wrong_estimate_is_red_and_a_name_is_no_markup() {
        let svg = draw(&[
            node("Sort", 0, 10.0, Some(12.0)),
            node("Seq Scan", 1, 10.0, Some(5_000.0)),
            node("Seq Scan", 1, 10.0, None),
        ]);
        assert_eq!(svg.matches("#c00").count(), 1);
        assert!(svg.contains("on &lt;b>") && !svg.contains("<b>"));
        assert!(svg.contains("it was not run"));
    }
}
