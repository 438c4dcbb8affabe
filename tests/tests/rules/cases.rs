//! Can a reader who knows no Rust understand a failed case, and is each answer's table of calls complete?

use std::{fs, path::Path};

/// What a case must not use, and why.
const NOT_IN_CASES: [(&str, &str); 3] = [
    (
        "ensure!",
        "`expect` says what was expected and what came; this may say `Condition failed: …`",
    ),
    (".json()", "`expect::json` shows a body that is no JSON; this shows where the parser stopped"),
    (".send().await", "`Target::send` notes the request before it is sent; this notes nothing"),
];

#[test]
fn a_finding_says_in_words_what_was_expected() {
    let mut wrong = Vec::new();
    for answer in guide::answers() {
        for entry in fs::read_dir(Path::new(answer.folder).join("src/cases")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            for (word, why) in NOT_IN_CASES.iter().filter(|(word, _)| text.contains(word)) {
                wrong.push(format!("{}: {word}: {why}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_table_of_calls_has_an_answer_and_what_is_essential_for_each_call() {
    for answer in guide::answers() {
        let page = answer.suite.page();
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows[0], "| Call | Body | An answer | Essential |", "{}", answer.name);
        for row in &rows[2..] {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let whole = cells.len() == 6 && [1, 3, 4].iter().all(|at| !cells[*at].is_empty());
            assert!(whole, "{}: {row}", answer.name);
        }
        assert!(!answer.suite.needs().is_empty(), "{}", answer.name);
        assert!(page.contains("(#for-every-call)"), "{}", answer.name);
        for file in ["README.md", "chapter.md"] {
            let text = fs::read_to_string(Path::new(answer.folder).join(file)).unwrap();
            assert!(text.contains("(src/cases/calls.md)"), "{}: {file} has no link", answer.name);
        }
    }
}
