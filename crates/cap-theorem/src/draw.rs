//! What does a history look like? Each client is a lane, each operation a bar from its call to its return. The time in
//! which the network was cut is a band, and what nobody can explain is in colour.

use std::{collections::BTreeSet, fmt::Write};

use crate::history::Operation;

const LANE: usize = 34;
const BAR: usize = 24;
const LEFT: usize = 70;
const STEP: usize = 72;
/// A drawing of more operations shows the last of them.
const MOST: usize = 60;

/// What is worth showing beside the operations themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// When the network was cut, from and to.
    pub partition: Option<(u64, u64)>,
    /// The operation, by its place in the history, that no order explains.
    pub anomaly: Option<usize>,
}

// ANCHOR: draw
/// Draws the history as SVG. The steps between events are all of one width: what matters is their order.
pub fn draw(history: &[Operation], marks: Marks) -> String {
    let skipped = history.len().saturating_sub(MOST);
    let shown = &history[skipped..];
    let clients: BTreeSet<_> = shown.iter().map(|it| it.client).collect();
    let mut times: BTreeSet<_> =
        shown.iter().flat_map(|it| [Some(it.called), it.returned]).flatten().collect();
    times.extend(marks.partition.into_iter().flat_map(|(from, to)| [from, to]));
    let x = |time: u64| LEFT + STEP * times.range(..time).count();
    let end = x(u64::MAX) + STEP / 2;
    let (width, height) = (end + 10, LANE * clients.len() + 16);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\" role=\"img\">\
         <title>{} operations of {} clients</title>",
        shown.len(),
        clients.len(),
    );
    if let Some((from, to)) = marks.partition {
        let (from, to) = (x(from), x(to));
        let width = to.saturating_sub(from);
        let _ = write!(
            svg,
            "<rect x=\"{from}\" y=\"0\" width=\"{width}\" height=\"{height}\" fill=\"#d9a400\" \
             fill-opacity=\"0.25\"/><text x=\"{}\" y=\"11\" fill=\"currentColor\">partition</text>",
            from + 4,
        );
    }
    for (lane, client) in clients.iter().enumerate() {
        let y = LANE * lane + 16;
        let _ = write!(
            svg,
            "<text x=\"4\" y=\"{}\" fill=\"currentColor\">client {client}</text>",
            y + 16,
        );
        for (place, operation) in shown.iter().enumerate().filter(|(_, it)| it.client == *client) {
            let from = x(operation.called);
            // A bar that never ends runs to the edge.
            let to = operation.returned.map_or(end, x).max(from + 6);
            let wrong = marks.anomaly == Some(place + skipped);
            let (fill, dash) = (
                if wrong { "#d0021b" } else { "#3b73b9" },
                if operation.returned.is_none() { " stroke-dasharray=\"4\"" } else { "" },
            );
            let _ = write!(
                svg,
                "<rect x=\"{from}\" y=\"{y}\" width=\"{}\" height=\"{BAR}\" rx=\"3\" fill=\"{fill}\" \
                 fill-opacity=\"0.3\" stroke=\"{fill}\"{dash}/>\
                 <text x=\"{}\" y=\"{}\" fill=\"currentColor\">{}</text>",
                to - from,
                from + 4,
                y + 16,
                escaped(&operation.words()),
            );
        }
    }
    svg + "</svg>"
}
// ANCHOR_END: draw

/// Text as SVG, cut where it is long. Control characters are not allowed in XML, not even escaped.
fn escaped(text: &str) -> String {
    let mut short: String = text.chars().take(24).collect();
    if text.chars().count() > 24 {
        short.push('…');
    }
    let printable = short.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let printable: String = printable.collect();
    printable.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Action;

    fn write(client: u32, value: &str, called: u64, returned: Option<u64>) -> Operation {
        let action = Action::Write(value.to_owned());
        Operation { client, key: "x".to_owned(), action, called, returned }
    }

    #[test]
    fn each_client_has_a_lane_and_what_is_wrong_is_in_colour() {
        let history = [write(0, "a", 0, Some(10)), write(7, "b", 5, None)];
        let marks = Marks { partition: Some((2, 8)), anomaly: Some(1) };
        let svg = draw(&history, marks);
        for part in ["client 0", "client 7", "write a", "partition", "stroke-dasharray"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert_eq!(svg.matches("#d0021b\"").count(), 2, "fill and stroke of one bar: {svg}");
    }

    #[test]
    fn a_value_cannot_break_the_drawing() {
        let svg = draw(&[write(0, "</svg>&\"\0", 0, Some(1))], Marks::default());
        assert!(svg.contains("&lt;/svg&gt;&amp;&quot;\u{fffd}"), "{svg}");
        assert_eq!(svg.matches("</svg>").count(), 1);
    }

    #[test]
    fn a_long_history_shows_its_end_and_an_empty_one_nothing() {
        let long: Vec<_> =
            (0..200).map(|n| write(0, &n.to_string(), 2 * n, Some(2 * n + 1))).collect();
        let svg = draw(&long, Marks { anomaly: Some(199), ..Marks::default() });
        assert!(svg.contains("write 199") && !svg.contains("write 139<"), "{svg}");
        assert!(svg.contains("#d0021b"));
        assert!(draw(&[], Marks::default()).ends_with("</svg>"));
    }
}
