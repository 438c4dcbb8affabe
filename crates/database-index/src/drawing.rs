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
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="14"><title>Plan</title><rect width="{width}" height="{height}" fill="#fff"/>"##
    );
    for (row, node) in nodes.iter().enumerate() {
        let (x, y) = (10 + INDENT * node.depth, 10 + ROW * row);
        // To the nearest node above that is one less deep.
        let parent = nodes[..row].iter().rposition(|it| it.depth + 1 == node.depth);
        if let Some(parent) = parent {
            let (from, to) = (10 + ROW * parent + 50, y + 25);
            let trunk = x - INDENT / 2;
            svg += &format!(r##"<path d="M{trunk} {from}V{to}H{x}" fill="none" stroke="#888"/>"##);
        }
        svg += &boxed(node, x, y);
    }
    svg + "</svg>"
}
// ANCHOR_END: drawing

fn boxed(node: &Node, x: usize, y: usize) -> String {
    let reads = node.reads.as_deref().map(|it| format!(" on {it}")).unwrap_or_default();
    let head = escaped(&format!("{}{reads}", node.kind));
    let bar = node.share * WIDTH as f64;
    let (rows, color) = match node.actual {
        Some(actual) => {
            let off = (actual.max(1.0) / node.estimated.max(1.0)).ln().abs();
            let color = if off >= 10_f64.ln() { "#c00" } else { "#333" };
            let time =
                format!("{:.3} ms, {:.0} % of the time", node.milliseconds, node.share * 100.0);
            (format!("rows: {:.0} estimated, {actual:.0} came; {time}", node.estimated), color)
        }
        None => (format!("rows: {:.0} estimated; it was not run", node.estimated), "#333"),
    };
    let (middle, low, under) = (x + 8, y + 20, y + 38);
    format!(
        r##"<rect x="{x}" y="{y}" width="{WIDTH}" height="50" rx="4" fill="#f4f4f4" stroke="#888"/><rect x="{x}" y="{}" width="{bar:.1}" height="5" fill="#2563eb"/><text x="{middle}" y="{low}" font-weight="bold">{head}</text><text x="{middle}" y="{under}" fill="{color}">{rows}</text>"##,
        y + 45
    )
}

/// A name of an index may hold whatever its maker typed.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains("on &lt;b&gt;") && !svg.contains("<b>"));
        assert!(svg.contains("it was not run"));
    }
}
