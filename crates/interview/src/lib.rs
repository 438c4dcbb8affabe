//! What does a mock interview need beyond the chapter? Each answer's `interview.toml` holds it: the interviewer's
//! answers to clarifying questions, the estimates, the points of a good answer, the red flags. The questions,
//! follow-ups and traps are in the chapter, so that nothing is written twice.

mod estimate;

use std::{fs, path::Path};

use anyhow::Context;
use serde::Deserialize;

pub use estimate::Estimate;

/// One answer's `interview.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interview {
    /// The kind of interview, which decides its length and stages.
    pub kind: Kind,
    /// What the candidate may ask first.
    pub clarify: Vec<Clarify>,
    /// What can be computed on the back of an envelope.
    #[serde(default, rename = "estimate")]
    pub estimates: Vec<Estimate>,
    /// What a good answer says.
    #[serde(rename = "point")]
    pub points: Vec<Point>,
    /// What a good answer never says.
    #[serde(rename = "red_flag")]
    pub red_flags: Vec<RedFlag>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A system is to be designed, in 45 minutes.
    Design,
    /// Something is to be explained, in 15 minutes.
    Concept,
}

/// A clarifying question of the chapter's table *Ask first*, and what this interviewer answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clarify {
    /// The words of the chapter.
    pub ask: String,
    /// The words of the interviewer.
    pub answer: String,
}

/// Something that a good answer says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// The stage in which it is said.
    pub stage: Stage,
    /// The lowest level of candidates from whom it is expected.
    pub level: Level,
    /// What it says.
    pub says: String,
    /// The experiment, or the `file:anchor`, that proves it.
    pub proof: Option<String>,
}

/// Something that ends an interview early.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedFlag {
    /// What the candidate says.
    pub says: String,
    /// What is wrong with it.
    pub because: String,
    /// The experiment, or the `file:anchor`, that proves it wrong.
    pub proof: Option<String>,
}

/// The stages of a design interview, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Five minutes.
    Clarify,
    /// Five minutes.
    Estimate,
    /// Fifteen minutes.
    Design,
    /// Twelve minutes.
    #[serde(rename = "deep dive")]
    DeepDive,
    /// Five minutes.
    #[serde(rename = "follow-ups")]
    FollowUps,
    /// Three minutes.
    #[serde(rename = "sum up")]
    SumUp,
}

/// The level of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// In the first job.
    Junior,
    /// After a few years.
    Mid,
    /// Leads others.
    Senior,
}

impl Interview {
    /// Reads the file in an answer's folder.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("interview.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_file_is_understood() {
        let text = r#"
            kind = "design"
            [[clarify]]
            ask = "How many?"
            answer = "Many."
            [[estimate]]
            of = "storage for a year"
            formula = "links * 12 * bytes / 10^9"
            given = { links = 1e8, bytes = 122 }
            says = "150 GB"
            [[point]]
            stage = "deep dive"
            level = "senior"
            says = "The index decides."
            proof = "race"
            [[red_flag]]
            says = "It is unique."
            because = "It is not."
        "#;
        let interview: Interview = toml::from_str(text).unwrap();
        assert_eq!(interview.kind, Kind::Design);
        assert_eq!(interview.points[0].stage, Stage::DeepDive);
        let storage = interview.estimates[0].value().unwrap();
        assert!((storage - 146.4).abs() < 1e-9, "{storage}");
    }

    #[test]
    fn a_word_that_is_not_known_is_an_error() {
        assert!(toml::from_str::<Interview>("kind = \"chat\"").is_err());
        let more = "kind = \"design\"\nclarify = []\npoint = []\nred_flag = []\nmore = 1";
        assert!(toml::from_str::<Interview>(more).unwrap_err().to_string().contains("more"));
    }
}
