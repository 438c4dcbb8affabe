//! What does a reader say before they see it? The answers to follow-ups and the verdicts are folded: say it, then open
//! it. On a forge, `chapter.md` shows them open.

use std::fmt::Write;

use interview::markdown;

/// The heading of the verdicts.
const VERDICTS: &str = "## The textbook answer, checked";
/// The heading of the follow-ups.
const FOLLOW_UPS: &str = "## Follow-ups";
/// The heading of the spoken answer.
const SPOKEN: &str = "## Say it in two minutes";

/// A chapter with its answers folded, and with the quotation marks of the spoken answer. Before that stands the answer in
/// 45 seconds, if there is one.
pub fn fold(chapter: &str, in_45_seconds: &str) -> String {
    let mut folded = String::with_capacity(chapter.len());
    for (at, part) in chapter.split("\n## ").enumerate() {
        let part = if at == 0 { part.to_owned() } else { format!("\n## {part}") };
        let heading = part.trim_start().lines().next().unwrap_or_default();
        folded += &match heading {
            VERDICTS => verdicts(&part),
            FOLLOW_UPS => follow_ups(&part),
            SPOKEN => spoken(&part, in_45_seconds.trim()),
            _ => part,
        };
    }
    folded
}

/// The second cell of each row opens on a click. The first table has the verdicts.
fn verdicts(part: &str) -> String {
    let (mut lines, mut row) = (Vec::new(), 0);
    for line in part.lines() {
        let is_row = line.starts_with("| ");
        row += usize::from(is_row || line.starts_with("|-"));
        match (is_row && row > 2, cells(line)) {
            (true, [says, verdict, rest]) => lines.push(format!(
                "|{says}| <details><summary>say it, then open</summary>{}</details> |{rest}",
                verdict.trim()
            )),
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// The first two cells of a row, and the rest. A bar inside of a cell is written `\|`.
fn cells(row: &str) -> [&str; 3] {
    let mut bars = row.match_indices('|').map(|(at, _)| at);
    let mut bar = || bars.find(|at| !row[..*at].ends_with('\\'));
    match (bar(), bar(), bar()) {
        (Some(one), Some(two), Some(three)) => {
            [&row[one + 1..two], &row[two + 1..three], &row[three + 1..]]
        }
        _ => [row, "", ""],
    }
}

/// Each paragraph that begins with a question in bold is folded, with the paragraphs that belong to it.
fn follow_ups(part: &str) -> String {
    let mut folded = String::new();
    let mut is_open = false;
    for paragraph in part.split("\n\n") {
        let question = paragraph.strip_prefix("**").and_then(|rest| rest.split_once("**"));
        let ends = question.is_some() || paragraph.trim_start().starts_with('#');
        if is_open && ends {
            folded += "</details>\n\n";
            is_open = false;
        }
        match question {
            Some((question, answer)) => {
                let _ = write!(
                    folded,
                    "<details class=\"follow-up\"><summary>{}</summary>\n\n{}\n\n",
                    inline(question),
                    answer.trim()
                );
                is_open = true;
            }
            None => folded += &format!("{paragraph}\n\n"),
        }
    }
    if is_open {
        folded += "</details>\n";
    }
    folded
}

/// A question as HTML, without its paragraph.
fn inline(question: &str) -> String {
    let html = markdown::html(&question.replace('\n', " "), "");
    let html = html.trim();
    let inner = html.strip_prefix("<p>").and_then(|html| html.strip_suffix("</p>"));
    inner.unwrap_or(html).to_owned()
}

/// The spoken answer begins with a quotation mark and ends with one, paragraphs later. A renderer that looks at one
/// paragraph takes the last for an opening one.
fn spoken(part: &str, short: &str) -> String {
    let long = match (part.find('"'), part.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}“{}”{}", &part[..first], &part[first + 1..last], &part[last + 1..])
        }
        _ => part.to_owned(),
    };
    match long.split_once(SPOKEN) {
        Some((before, long)) if !short.is_empty() => format!(
            "{before}{SPOKEN}\n\n### In 45 seconds\n\n“{short}”\n\n### In two minutes\n\n{}",
            long.trim_start()
        ),
        _ => long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_folded_with_all_of_its_paragraphs() {
        let text = "# T\n\n## Follow-ups\n\n**And\nnow?** Yes.\n\nMore.\n\n**Then `x`?** No.\n\n### Else\n\nOpen.\n\n## Sources\n\nS.\n";
        let folded = fold(text, "");
        for piece in [
            "<summary>And now?</summary>\n\nYes.\n\nMore.\n\n</details>",
            "<summary>Then <code>x</code>?</summary>\n\nNo.\n\n</details>\n\n### Else\n\nOpen.",
            "\n## Sources\n\nS.",
        ] {
            assert!(folded.contains(piece), "no {piece} in {folded}");
        }
        assert_eq!(folded.matches("<details").count(), folded.matches("</details>").count());
    }

    #[test]
    fn a_verdict_is_folded_and_what_everybody_says_is_not() {
        let text = "## The textbook answer, checked\n\n| everybody says | verdict | see |\n|---|---|---|\n| \"a \\| b\" | **Wrong**: it | [x](#x) |\n\nAfter | it.\n";
        let folded = fold(text, "");
        let row = "| \"a \\| b\" | <details><summary>say it, then open</summary>**Wrong**: it</details> | [x](#x) |";
        assert!(folded.contains(row), "{folded}");
        assert!(folded.contains("| everybody says | verdict | see |\n|---|---|---|\n"), "{folded}");
        assert_eq!(folded.matches("<details>").count(), 1);
    }

    #[test]
    fn the_spoken_answer_has_its_quotation_marks() {
        let text = "## Say it in two minutes\n\n\"One \"two\" three.\n\nFour.\"\n\n## Next \"x\"\n";
        let long = "“One \"two\" three.\n\nFour.”\n\n## Next \"x\"";
        assert!(fold(text, "").contains(&format!("two minutes\n\n{long}")));
        let short = "## Say it in two minutes\n\n### In 45 seconds\n\n“One.\n\nTwo.”\n\n### In two minutes\n\n";
        assert!(fold(text, "One.\n\nTwo.\n").contains(&format!("{short}{long}")));
    }

    #[test]
    fn every_follow_up_and_every_verdict_of_every_chapter_is_folded() {
        for subject in interview::subject::Subject::all(&interview::workspace()).unwrap() {
            let path = interview::workspace().join("crates").join(&subject.name).join("chapter.md");
            let folded = fold(&std::fs::read_to_string(path).unwrap(), "");
            let (follow_ups, verdicts) =
                (subject.chapter.follow_ups.len(), subject.chapter.sentences.len());
            let name = &subject.name;
            assert_eq!(folded.matches("class=\"follow-up\"").count(), follow_ups, "{name}");
            assert_eq!(folded.matches("say it, then open").count(), verdicts, "{name}");
        }
    }
}
