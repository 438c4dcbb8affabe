//! What can be asked? Each folder below `crates/` that has a chapter and an `interview.toml`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    chapter::{Chapter, Sentence},
    estimate::Estimate,
    measured::Measured,
    sheet::Interview,
};

/// One question of the book, with all that an interview about it needs.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The answer's name, which is its folder's too.
    pub name: String,
    /// What the chapter says.
    pub chapter: Chapter,
    /// What `interview.toml` says.
    pub sheet: Interview,
    /// What was measured.
    pub measured: Measured,
}

impl Subject {
    /// Reads one from an answer's folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let name = folder.file_name().context("no folder")?.to_string_lossy().into_owned();
        let path = folder.join("chapter.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let chapter = Chapter::parse(&text, &name).with_context(|| path.display().to_string())?;
        let (sheet, measured) = (Interview::read(folder)?, Measured::read(folder)?);
        Ok(Self { name, chapter, sheet, measured })
    }

    /// Reads all of a workspace, the easiest first.
    pub fn all(workspace: &Path) -> anyhow::Result<Vec<Self>> {
        let crates = workspace.join("crates");
        let entries = fs::read_dir(&crates).with_context(|| crates.display().to_string())?;
        let folders = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
        let has_all = |folder: &PathBuf| {
            ["chapter.md", "interview.toml"].iter().all(|file| folder.join(file).is_file())
        };
        let mut all = folders
            .iter()
            .filter(|folder| has_all(folder))
            .map(|folder| Self::read(folder))
            .collect::<anyhow::Result<Vec<_>>>()?;
        all.sort_by(|a, b| (a.chapter.difficulty, &a.name).cmp(&(b.chapter.difficulty, &b.name)));
        anyhow::ensure!(!all.is_empty(), "{} has no interview.toml", crates.display());
        Ok(all)
    }

    /// What was recorded for the experiments of a sentence, in words.
    pub fn recorded(&self, sentence: &Sentence) -> Vec<String> {
        let recorded = |name: &String| {
            let recorded = self.measured.of(name)?;
            Some(format!("{name}: {}", recorded.in_words(&sentence.reason)))
        };
        sentence.experiments.iter().filter_map(recorded).collect()
    }

    /// What its card shows: a recorded number, and what it is.
    pub fn card(&self) -> Option<(String, &str)> {
        let card = self.sheet.card.as_ref()?;
        Some((self.measured.figure(&card.of)?.in_words(), &card.says))
    }

    /// The files of code that prove something, from the workspace's root.
    pub fn code(&self) -> impl Iterator<Item = String> {
        let points = self.sheet.points.iter().filter_map(|it| it.proof.as_deref());
        let flags = self.sheet.red_flags.iter().filter_map(|it| it.proof.as_deref());
        let files = points.chain(flags).filter_map(|proof| Some(proof.split_once(':')?.0));
        files.map(|file| format!("crates/{}/{file}", self.name))
    }

    /// The estimate with these words.
    pub fn estimate(&self, of: &str) -> Option<&Estimate> {
        self.sheet.estimates.iter().find(|estimate| estimate.of == of)
    }

    /// The sentence with these words.
    pub fn sentence(&self, says: &str) -> Option<&Sentence> {
        self.chapter.sentences.iter().find(|sentence| sentence.says == says)
    }
}

/// The command that runs an experiment.
pub fn command(answer: &str, experiment: &str) -> String {
    format!("cargo run -- {answer} experiment {experiment}")
}

/// The subject of the small workspace that this crate's tests use.
#[cfg(test)]
pub fn small() -> Subject {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workspace/crates/sums");
    Subject::read(&folder).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chapter::FollowUp,
        sheet::{Point, Stage},
    };

    #[test]
    fn every_answer_of_this_workspace_can_be_asked() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let all = Subject::all(&workspace).unwrap();
        assert!(all.len() >= 13, "{} are found", all.len());
        for subject in all {
            let Chapter { sentences, breaks, follow_ups, ask_first, spoken, diagram, .. } =
                &subject.chapter;
            assert!(sentences.len() >= 5, "{}: {} sentences", subject.name, sentences.len());
            assert!(breaks.len() >= 3, "{}: {} breaks", subject.name, breaks.len());
            assert!(follow_ups.len() >= 3, "{}: {} follow-ups", subject.name, follow_ups.len());
            assert!(ask_first.len() >= 3 && !spoken.is_empty(), "{}", subject.name);
            assert!(diagram.is_some(), "{} draws nothing", subject.name);
            for FollowUp { question, .. } in follow_ups.iter().filter(|it| it.is_asked()) {
                let words = question.split_whitespace().count();
                let is_whole =
                    question.ends_with('?') && words > 2 && !question.starts_with("And ");
                assert!(is_whole, "{}: nobody asks {question:?}", subject.name);
            }
            for Point { stage, says, follow_up, .. } in &subject.sheet.points {
                let is_known = |asked: &String| {
                    follow_ups.iter().any(|it| it.is_asked() && it.question == *asked)
                };
                let is_of_follow_ups = *stage == Stage::FollowUps;
                assert_eq!(follow_up.is_some(), is_of_follow_ups, "{}: {says}", subject.name);
                let is_asked = follow_up.as_ref().is_none_or(is_known);
                assert!(is_asked, "{}: {follow_up:?} is in no follow-up", subject.name);
            }
            for estimate in &subject.sheet.estimates {
                let value = estimate.value().unwrap();
                let is_right =
                    |said: &str| Estimate::is_right(Some(estimate.off_by(said).unwrap()));
                let Estimate { of, says, .. } = estimate;
                assert!(is_right(says), "{}: {of}: {says} is not {value}", subject.name);
                assert!(is_right(&value.to_string()), "{}: {of}: {value}", subject.name);
                let ten = 10.0 * value;
                assert!(!is_right(&ten.to_string()), "{}: {of}: {ten}", subject.name);
            }
        }
    }

    #[test]
    fn a_sentence_shows_what_was_recorded() {
        let small = small();
        assert!(small.code().eq(["crates/sums/src/lib.rs"]));
        let recorded = small.recorded(&small.chapter.sentences[0]);
        assert_eq!(small.card(), Some(("3 of 4".to_owned(), "sums did not fit into 32 bits")));
        assert_eq!(recorded, ["overflow: sums that did not fit: 3 of 4; 1 of 1 checks held"]);
    }
}
