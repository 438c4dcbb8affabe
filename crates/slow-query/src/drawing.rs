//! How does a plan look, before and after? A box for each node, below the one that asks it for rows, with a bar for its part of
//! the time.

use crate::plan::{Node, Plan};

const ROW: usize = 64;
const INDENT: usize = 28;
const WIDTH: usize = 560;

// ANCHOR: drawing
/// The plans side by side as SVG, each under its title. The planner's estimate stands beside what came: where they differ
/// tenfold, the line is red.
pub fn draw(plans: &[(&str, &Plan)]) -> String {
    let (mut columns, mut width, mut rows) = (String::new(), 10, 0);
    for (title, plan) in plans {
        let steps = plan.root.steps();
        let whole: f64 = steps.iter().map(|(_, node)| node.own_milliseconds()).sum();
        let deepest = steps.iter().map(|(depth, _)| *depth).max().unwrap_or_default();
        let pages = plan.root.pages();
        columns += &format!(
            r#"<text x="{width}" y="24" font-weight="bold">{title}: {pages:.0} pages</text>"#
        );
        for (row, (depth, node)) in steps.iter().enumerate() {
            let share = if whole > 0.0 { node.own_milliseconds() / whole } else { 0.0 };
            columns += &boxed(width + INDENT * depth, 36 + ROW * row, node, share);
        }
        width += WIDTH + INDENT * deepest + 20;
        rows = rows.max(steps.len());
    }
    let height = 36 + ROW * rows;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="14"><title>Plan</title><rect width="{width}" height="{height}" fill="#fff"/>{columns}</svg>"##
    )
}
// ANCHOR_END: drawing

fn boxed(x: usize, y: usize, node: &Node, share: f64) -> String {
    let name = node.name().replace('&', "&amp;").replace('<', "&lt;");
    let (expected, came, loops) = (node.estimated, node.rows(), node.loops);
    let off = came.max(1.0) / expected.max(1.0);
    let color = if (0.1..=10.0).contains(&off) { "#333" } else { "#c00" };
    let times = if loops > 1.0 { format!(", {loops:.0} times") } else { String::new() };
    let (milliseconds, percent) = (node.own_milliseconds(), share * 100.0);
    let (left, first, second, under) = (x + 8, y + 20, y + 38, y + 45);
    let bar = share * WIDTH as f64;
    format!(
        r##"<rect x="{x}" y="{y}" width="{WIDTH}" height="50" rx="4" fill="#f4f4f4" stroke="#888"/><rect x="{x}" y="{under}" width="{bar:.1}" height="5" fill="#2563eb"/><text x="{left}" y="{first}" font-weight="bold">{name}</text><text x="{left}" y="{second}" fill="{color}">rows: {expected:.0} estimated, {came:.0} came{times}; {milliseconds:.3} ms, {percent:.0} %</text>"##
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::Pasted;

    #[test]
    fn two_plans_stand_side_by_side_and_a_wrong_estimate_is_red() {
        let scan = |came: u32| {
            let plan = json!([{ "Plan": {
                "Node Type": "Sort", "Plan Rows": 10, "Actual Rows": 9, "Actual Loops": 1,
                "Plans": [{ "Node Type": "<b>", "Plan Rows": 10, "Actual Rows": came, "Actual Loops": 2 }],
            } }]);
            let Pasted(plan) = serde_json::from_value(plan).unwrap();
            plan
        };
        let svg = draw(&[("before", &scan(5_000)), ("after", &scan(12))]);
        assert_eq!(svg.matches("#c00").count(), 1);
        assert!(svg.contains("before") && svg.contains("after") && svg.contains("2 times"));
        assert!(svg.contains("&lt;b>") && !svg.contains("<b>"));
    }
}
