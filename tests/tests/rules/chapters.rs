//! Can a chapter be read tonight? Its length, its spoken answer, its verdicts and its diagrams have limits.

use std::{fs, path::Path, sync::LazyLock};

use guide::element::pattern;
pub use interview::chapter::{part, rows};
use regex::Regex;

/// A chapter has at most this many words, not counting code.
const WORDS: usize = 3_000;
/// The number of words that a candidate can say in two minutes.
const SPOKEN: std::ops::RangeInclusive<usize> = 260..=320;
/// The verdicts on a textbook sentence.
const VERDICTS: [&str; 3] = ["**Holds**", "**Holds within limits**", "**Wrong**"];

/// The chapters of answers that have a whiteboard version. The limits apply to the others when they get one.
fn chapters() -> anyhow::Result<Vec<(&'static str, String)>> {
    let answers = guide::answers().into_iter().filter(|answer| answer.serve.has_whiteboard());
    answers
        .map(|answer| {
            let path = Path::new(answer.folder).join("chapter.md");
            Ok((answer.name, fs::read_to_string(path)?))
        })
        .collect()
}

#[test]
fn a_chapter_has_at_most_three_thousand_words_and_can_be_said_in_two_minutes() {
    for (name, chapter) in chapters().unwrap() {
        let words = words(&chapter);
        assert!(words <= WORDS, "{name}: {words} words");
        let spoken = self::words(part(&chapter, "Say it in two minutes"));
        assert!(SPOKEN.contains(&spoken), "{name}: {spoken} spoken words, not {SPOKEN:?}");
    }
}

#[test]
fn a_sentence_gets_one_of_three_verdicts() {
    for (name, chapter) in chapters().unwrap() {
        let verdicts: Vec<_> = rows(part(&chapter, "The textbook answer, checked")).collect();
        assert!(!verdicts.is_empty(), "{name} checks nothing");
        for row in verdicts {
            let known = VERDICTS.iter().any(|verdict| row[1].starts_with(verdict));
            assert!(known, "{name}: {:?} does not begin with one of {VERDICTS:?}", row[1]);
        }
    }
}

#[test]
fn a_chapter_opens_with_two_paths_and_draws_its_design() {
    for (name, chapter) in chapters().unwrap() {
        let opening = chapter.split("\n## ").next().unwrap_or_default();
        for path in ["*Tonight*", "*This evening*"] {
            assert!(opening.contains(path), "{name} does not open with the path {path}");
        }
        assert!(part(&chapter, "The design").contains("\n```mermaid\n"), "{name}: no diagram");
    }
}

/// The first number in a text, as it is written; nothing if there is none.
pub fn first_number(text: &str) -> String {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| pattern(r"\d[\d,]*(\.\d+)?"));
    NUMBER.find(text).map(|number| number.as_str().to_owned()).unwrap_or_default()
}

/// How many words a reader reads: no code, no comments, no elements, no marks of tables.
pub fn words(text: &str) -> usize {
    static NO_PROSE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"(?s)```.*?```|<!--.*?-->|<[^>]*>|\]\([^)]*\)"));
    let prose = NO_PROSE.replace_all(text, " ");
    prose.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count()
}
