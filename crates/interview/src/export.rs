//! How are results shown, compared and taken along? As Markdown, which reads well in a terminal too.

use time::{OffsetDateTime, macros::format_description};

use crate::{
    markdown::plain,
    outcome::{Advice, Axis, Outcome},
    progress::Progress,
    sheet::Stage,
};

/// All results: a table over time, then each interview, the newest first.
pub fn export(progress: &Progress) -> String {
    let mut text = "# My mock interviews\n".to_owned();
    if progress.interviews.is_empty() {
        text += "\nNone yet. `cargo run -- interview` begins one.\n";
    } else {
        text += "\n| when | question | level | scoping | correctness | trade-offs | numbers | communication |\n\
                 |---|---|---|---|---|---|---|---|\n";
        for one in &progress.interviews {
            let axes: String =
                one.axes.iter().map(|axis| format!(" {} |", percent(axis))).collect();
            text += &format!(
                "| {} | {} | {} |{axes}\n",
                day(one.begun),
                one.title,
                one.level_in_words()
            );
        }
    }
    for (at, one) in progress.interviews.iter().enumerate().rev() {
        let before = progress.interviews[..at].iter().rev().find(|it| it.answer == one.answer);
        text += &format!("\n## {}, {}\n\n", one.title, day(one.begun));
        text += &result(one, before);
        text += &words(one);
    }
    if !progress.stories.is_empty() {
        text += "\n# My stories\n";
    }
    for story in &progress.stories {
        text += &format!("\n## {}\n", story.question);
        let parts = [
            ("Situation", &story.situation),
            ("Task", &story.task),
            ("Action", &story.action),
            ("Result", &story.result),
        ];
        for (name, words) in parts {
            text += &format!("\n*{name}.* {words}\n");
        }
    }
    text
}

/// One result: the level with its reason, the axes, the time, the red flags, and what would have raised the level.
/// `before` is the reader's last interview about the same question.
pub fn result(one: &Outcome, before: Option<&Outcome>) -> String {
    let mut text = format!("**Level: {}.** {}\n", one.level_in_words(), one.reason);
    if let Some(before) = before {
        text += &format!(
            "\nBefore, on {}: {}, {:.0} % of all axes. Now: {:.0} %.\n",
            day(before.begun),
            before.level_in_words(),
            100.0 * before.share(),
            100.0 * one.share(),
        );
    }
    text += "\n| axis | points | |\n|---|---|---|\n";
    for axis in &one.axes {
        let Axis { name, got, of } = axis;
        let than = before.and_then(|it| it.axes.iter().find(|it| it.name == *name));
        let than = than.map_or_else(String::new, |it| format!(" (before: {})", percent(it)));
        text += &format!("| {name} | {got} of {of} | {}{than} |\n", percent(axis));
    }
    let times = Stage::ALL.into_iter().filter_map(|stage| {
        let seconds = one.seconds.get(&stage)?;
        Some(format!("{} {}:{:02}", stage.name(), seconds / 60, seconds % 60))
    });
    text += &format!("\nTime: {}.\n", times.collect::<Vec<_>>().join(", "));
    if !one.flags.is_empty() {
        text += "\n**Red flags**\n\n";
        text += &one.flags.iter().map(advice).collect::<String>();
    }
    if one.raise.is_empty() {
        text += "\nNothing is missing.\n";
    } else {
        text += "\n**What would have raised it**\n\n";
        text += &one.raise.iter().map(advice).collect::<String>();
    }
    text
}

fn advice(advice: &Advice) -> String {
    let proof = advice.proof.as_ref().map(|proof| format!("\n  {}", proof.in_words()));
    format!("- {}{}\n", advice.says, proof.unwrap_or_default())
}

/// The reader's own words.
fn words(one: &Outcome) -> String {
    let parts = [
        ("I asked", &one.notes.questions),
        ("My design", &one.notes.design),
        ("My answer to the second question", &one.notes.later),
        ("My sum-up", &one.notes.sum_up),
    ];
    let said = parts.into_iter().filter(|(_, words)| !words.is_empty());
    said.map(|(name, words)| format!("\n*{name}*\n\n> {}\n", words.replace('\n', "\n> "))).collect()
}

/// `83 %`, or a dash if there was nothing to get.
pub fn percent(axis: &Axis) -> String {
    axis.share().map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", 100.0 * share))
}

/// `2026-11-30`, where the reader was at that time.
pub fn day(at: OffsetDateTime) -> String {
    at.format(format_description!("[year]-[month]-[day]")).unwrap_or_else(|_| at.to_string())
}

/// A result for a terminal.
pub fn for_terminal(one: &Outcome, before: Option<&Outcome>) -> String {
    let text = result(one, before);
    let lines =
        text.lines().filter(|line| !line.starts_with("|---") && *line != "| axis | points | |");
    let line = |line: &str| match line.strip_prefix("| ") {
        Some(row) => {
            let cells: Vec<_> = row.trim_end_matches(" |").split(" | ").map(str::trim).collect();
            let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
            format!("  {:<14} {:>10}  {}", cell(0), cell(1), cell(2))
        }
        None if line.starts_with("**") => plain(line),
        None => line.to_owned(),
    };
    lines.map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::outcome;

    #[test]
    fn results_are_compared_over_time() {
        let progress = Progress {
            interviews: vec![outcome(&[], &[0], 2), outcome(&[0, 1], &[], 0)],
            ..Progress::default()
        };
        let text = export(&progress);
        for words in [
            "| 1970-01-01 | How do you add two numbers? | below junior |",
            "**Level: senior.**",
            "Before, on 1970-01-01: below junior,",
            "| correctness | 4 of 4 | 100 % (before: 25 %) |",
            "- “It always fits.” Three of four did not.\n  run it now: cargo run -- sums experiment overflow",
        ] {
            assert!(text.contains(words), "no {words} in {text}");
        }
    }

    #[test]
    fn a_terminal_shows_a_table_without_bars() {
        let text = for_terminal(&outcome(&[0, 1], &[], 0), None);
        assert!(text.contains("  correctness        4 of 4  100 %"), "{text}");
        assert!(!text.contains('|') && !text.contains("**"), "{text}");
    }

    #[test]
    fn the_readers_words_are_quoted_line_by_line() {
        let mut one = outcome(&[0], &[], 0);
        one.notes.design = "a table\nan index".to_owned();
        let progress = Progress { interviews: vec![one], ..Progress::default() };
        assert!(export(&progress).contains("*My design*\n\n> a table\n> an index\n"));
    }
}
