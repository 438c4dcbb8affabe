//! Could this check fail at all? A [`Sabotage`] is a mistake in the answer's code that turns it red.

use std::fmt;

use serde::Serialize;

use crate::report::escaped;

/// A small change to the answer's code, and the check that it turns red. `cargo practice prove` makes the change in a
/// copy of the workspace, and verifies that this check fails.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sabotage {
    /// The file, from the answer's folder: `src/link.rs`.
    pub file: &'static str,
    /// The text to replace. It occurs exactly once in the file.
    pub replace: &'static str,
    /// What a candidate might have written instead.
    pub with: &'static str,
    /// The sentence of the check, as in the report of a run with the quick parameters.
    pub check: &'static str,
}

impl Sabotage {
    /// For the guide: a paragraph, and the change as a diff, which the book's highlighter knows how to colour. The file
    /// is in the crate of `answer`, and is named from the repository's root.
    pub fn html(&self, answer: &str) -> String {
        let Self { file, check, .. } = self;
        format!(
            "<p>Try this: change <code>crates/{answer}/{}</code>, and the check “{}” turns red.</p>\
             <pre><code class=\"language-diff\">{}</code></pre>",
            escaped(file),
            escaped(check),
            escaped(&self.diff())
        )
    }

    /// The change as the lines of a diff.
    fn diff(&self) -> String {
        let lines = |mark: char, text: &str| {
            unindented(text).iter().map(|line| format!("{mark} {line}\n")).collect::<String>()
        };
        lines('-', self.replace) + &lines('+', self.with)
    }
}

/// For the terminal.
impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, check, .. } = self;
        writeln!(f, "Try this: change {file}, and the check \"{check}\" turns red.")?;
        self.diff().lines().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// The lines without the margin that all lines but the first share. The first line begins in the middle of a line.
fn unindented(text: &str) -> Vec<&str> {
    let margin = |line: &str| line.len() - line.trim_start().len();
    let later = text.lines().skip(1).filter(|line| !line.trim().is_empty());
    let shared = later.map(margin).min().unwrap_or(0);
    text.lines().map(|line| &line[shared.min(margin(line))..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SABOTAGE: Sabotage = Sabotage {
        file: "src/sum.rs",
        replace: "if a < b {\n            a",
        with: "if a > b {\n            a",
        check: "the smaller & the larger",
    };

    #[test]
    fn a_sabotage_is_shown_as_a_diff_without_the_margin_of_its_place() {
        let shown = SABOTAGE.to_string();
        assert!(shown.ends_with("  - if a < b {\n  - a\n  + if a > b {\n  + a\n"), "{shown}");
    }

    #[test]
    fn in_html_it_is_escaped() {
        let html = SABOTAGE.html("sums");
        assert!(html.contains("- if a &lt; b {") && html.contains("smaller &amp; the"), "{html}");
        assert!(html.contains("<code>crates/sums/src/sum.rs</code>"), "{html}");
    }
}
