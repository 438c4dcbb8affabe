//! What does the whiteboard version get wrong? The table in its chapter says it: each row names the cases and
//! experiments that find the mistake.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};

use crate::Answer;

/// The part of the chapter, and the head of its table.
const PART: &str = "\n## The whiteboard\n";
const HEAD: &str = "| what the whiteboard gets wrong | found by | what was seen |";

/// The names in the column "found by".
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// Cases that the whiteboard version fails.
    pub cases: BTreeSet<String>,
    /// Experiments that it fails.
    pub experiments: BTreeSet<String>,
}

impl Mistakes {
    /// Reads the table in this chapter. A row without a name, or with a name that does not exist, is an error.
    pub fn read(answer: &Answer, chapter: &str) -> anyhow::Result<Self> {
        let (_, part) = chapter.split_once(PART).context("there is no part \"The whiteboard\"")?;
        let part = part.split("\n## ").next().unwrap_or_default();
        let (_, rows) = part.split_once(HEAD).with_context(|| format!("no table {HEAD}"))?;
        let rows = rows.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
        let mut mistakes = Self::default();
        for row in rows {
            let found_by = row.split('|').nth(2).unwrap_or_default();
            let names: Vec<_> = found_by.split('`').skip(1).step_by(2).collect();
            ensure!(!names.is_empty(), "this row names no case and no experiment: {row}");
            for name in names {
                let is_case = answer.suite.cases.iter().any(|case| case.name == name);
                ensure!(
                    is_case || answer.experiment(name).is_some(),
                    "there is no case and no experiment {name}"
                );
                let kind = if is_case { &mut mistakes.cases } else { &mut mistakes.experiments };
                kind.insert(name.to_owned());
            }
        }
        Ok(mistakes)
    }
}

#[cfg(test)]
mod tests {
    use conform::case::{Case, Kind, Suite};

    use super::*;
    use crate::{Experiment, Lab, NoOptions, Serve, Serving};

    fn answer() -> Answer {
        let case = Case {
            name: "a_link_redirects",
            kind: Kind::Plain,
            says: "",
            why: "",
            run: |_| Box::pin(async { Ok(()) }),
        };
        let race = Experiment::new("race", "", &[], |NoOptions {}, _: Lab| async { Ok(()) });
        Answer {
            name: "some",
            question: "Some?",
            folder: env!("CARGO_MANIFEST_DIR"),
            needs: &[],
            migrations: None,
            try_it: &[],
            serve: Serve::new(|NoOptions {}, _: Serving| async { Ok(()) }),
            suite: Suite { calls: "", cases: vec![case] },
            experiments: vec![race],
        }
    }

    fn chapter(rows: &str) -> String {
        format!(
            "# Some\n\n## The whiteboard\n\nCode.\n\n{HEAD}\n|---|---|---|\n{rows}\n\n## Next\n\n| a | `b` | c |\n"
        )
    }

    #[test]
    fn the_names_in_the_second_column_are_cases_and_experiments() {
        let rows = "| `x` | `a_link_redirects` | 500 |\n| y | [`race`](#some-race), or not | 2 |";
        let mistakes = Mistakes::read(&answer(), &chapter(rows)).unwrap();
        assert_eq!(mistakes.cases, BTreeSet::from(["a_link_redirects".to_owned()]));
        assert_eq!(mistakes.experiments, BTreeSet::from(["race".to_owned()]));
    }

    #[test]
    fn a_row_that_names_nothing_that_there_is_is_an_error() {
        for (chapter, problem) in [
            (chapter("| x | y | z |"), "names no case"),
            (chapter("| x | `rice` | z |"), "no experiment rice"),
            ("# Some\n\n## The whiteboard\n\nCode.\n".to_owned(), "no table"),
            ("# Some\n".to_owned(), "no part"),
        ] {
            let error = Mistakes::read(&answer(), &chapter).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
