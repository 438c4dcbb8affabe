//! Does the README list every answer with its experiments?

use std::fs;

#[test]
fn every_answer_has_a_row_with_its_experiments() {
    let readme = fs::read_to_string(lab::stack::workspace().join("README.md")).unwrap();
    for answer in guide::answers() {
        let link = format!("(crates/{})", answer.name);
        let row = readme.lines().find(|line| line.starts_with('|') && line.contains(&link));
        let last = row.and_then(|row| row.trim_end_matches(" |").rsplit('|').next());
        let names: Vec<_> = answer.experiments.iter().map(|it| format!("`{}`", it.name)).collect();
        assert_eq!(last.map(str::trim), Some(&*names.join(" ")), "{}", answer.name);
    }
}
