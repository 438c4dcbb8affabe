//! How does a terminal show a table of calls? The table is Markdown, in `src/cases/calls.md` of an answer. Its rows are
//! too wide for a line, so each becomes a block.

use std::fmt::Write;

use crate::case::Suite;

/// The width of a line.
const WIDTH: usize = 100;
/// What every answer promises.
const EVERY_CALL: &str = include_str!("every_call.md");
/// The link from a table of calls to that file.
const LINK: &str = "../../../conform/src/every_call.md";
/// The link within the whole page.
const PLACE: &str = "#for-every-call";

impl Suite {
    /// The whole page: the answer's calls, and what holds for every call.
    pub fn page(&self) -> String {
        format!("{}\n{EVERY_CALL}", self.calls.replace(LINK, PLACE))
    }

    /// What the program needs and has to be told: the text above the table, without its heading.
    pub fn needs(&self) -> String {
        let above = self.calls.lines().take_while(|line| !line.starts_with('|'));
        above.filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n").trim().to_owned()
    }
}

/// The page as a terminal shows it.
pub fn in_terminal(page: &str) -> String {
    let mut shown = String::new();
    let mut headings: Vec<String> = Vec::new();
    // A terminal has no links.
    let link = format!("[what holds for every call]({PLACE})");
    for line in page.replace(&link, "what holds for every call").lines() {
        let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            headings.clear();
            let _ = writeln!(shown, "{}", line.replace(['`', '#'], "").trim());
            continue;
        };
        let cells = row.split('|').map(|cell| cell.replace('`', "").trim().to_owned());
        let cells: Vec<_> = cells.collect();
        if headings.is_empty() {
            headings = cells;
        } else if !cells[0].starts_with("---") {
            block(&headings, &cells, &mut shown);
        }
    }
    shown
}

fn block(headings: &[String], cells: &[String], shown: &mut String) {
    let _ = writeln!(shown, "{}", cells[0]);
    for (heading, cell) in headings.iter().zip(cells).skip(1).filter(|(_, cell)| !cell.is_empty()) {
        let mut heading = heading.to_lowercase();
        let mut line = String::new();
        for word in cell.split(' ') {
            if line.len() + word.len() > WIDTH {
                let _ = writeln!(shown, "    {heading:10}{line}");
                heading.clear();
                line.clear();
            }
            line = format!("{line} {word}");
        }
        let _ = writeln!(shown, "    {heading:10}{line}");
    }
    shown.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: &str = "# The calls of a clock\n\nIt needs a battery.\n\n| Call | Body | Essential |\n|---|---|---|\n| `GET /now` | | It is right. |\n| `PUT /now` | `{\"now\": 1}` | It\nend";

    #[test]
    fn a_row_becomes_a_block_without_its_empty_cells() {
        let shown = in_terminal(
            "| Call | Body | Essential |\n|---|---|---|\n| `GET /now` | | It is right. |\n",
        );
        assert_eq!(shown, "GET /now\n    essential  It is right.\n\n");
    }

    #[test]
    fn what_is_needed_stands_above_the_table() {
        let suite = Suite { calls: CALLS, cases: Vec::new() };
        assert_eq!(suite.needs(), "It needs a battery.");
        assert!(in_terminal(&suite.page()).contains("\nFor every call\n"));
    }
}
