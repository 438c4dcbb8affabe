//! What does a mock interview need beyond the chapter? Each answer's `interview.toml` holds it: the interviewer's
//! answers to clarifying questions, the estimates, the points of a good answer, the red flags. The questions,
//! follow-ups and traps are in the chapter, so that nothing is written twice.

use std::{fs, path::Path};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::estimate::Estimate;

/// One answer's `interview.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interview {
    /// The kind of interview, which decides its length and stages.
    pub kind: Kind,
    /// The figure on the question's card. A rule demands it.
    pub card: Option<Card>,
    /// The answer as one would say it in 45 seconds, as Markdown. A rule counts its words.
    #[serde(default)]
    pub in_45_seconds: String,
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

/// The figure that makes readers of the first page curious.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Where the number is recorded: `EXPERIMENT: FIGURE`, or the name of a check that saw a number.
    pub of: String,
    /// What the number is, in words that go on after it.
    pub says: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The chapter's follow-up that it answers. If that is not drawn, the point is not asked for. Only the points of the
    /// follow-ups have it.
    pub follow_up: Option<String>,
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

/// The stages of an interview, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The candidate asks.
    Clarify,
    /// The candidate computes.
    Estimate,
    /// The candidate designs, or explains.
    Design,
    /// The interviewer looks for the limits.
    #[serde(rename = "deep dive")]
    DeepDive,
    /// The interviewer asks on.
    #[serde(rename = "follow-ups")]
    FollowUps,
    /// The candidate sums up.
    #[serde(rename = "sum up")]
    SumUp,
}

/// The level of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// In the first job.
    Junior,
    /// After a few years.
    Mid,
    /// Leads others.
    Senior,
}

impl Kind {
    /// How many minutes a stage takes: 45 in all for a design, 15 for a concept.
    pub fn minutes(self, stage: Stage) -> u64 {
        let (design, concept) = match stage {
            Stage::Clarify | Stage::Estimate | Stage::FollowUps => (5, 2),
            Stage::Design => (15, 5),
            Stage::DeepDive => (12, 3),
            Stage::SumUp => (3, 1),
        };
        match self {
            Self::Design => design,
            Self::Concept => concept,
        }
    }

    /// The minutes of all stages together.
    pub fn all_minutes(self) -> u64 {
        Stage::ALL.into_iter().map(|stage| self.minutes(stage)).sum()
    }
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 6] =
        [Self::Clarify, Self::Estimate, Self::Design, Self::DeepDive, Self::FollowUps, Self::SumUp];

    /// As `interview.toml` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clarify => "clarify",
            Self::Estimate => "estimate",
            Self::Design => "design",
            Self::DeepDive => "deep dive",
            Self::FollowUps => "follow-ups",
            Self::SumUp => "sum up",
        }
    }
}

impl Level {
    /// Every level, the lowest first.
    pub const ALL: [Self; 3] = [Self::Junior, Self::Mid, Self::Senior];

    /// As `interview.toml` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Junior => "junior",
            Self::Mid => "mid",
            Self::Senior => "senior",
        }
    }
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
            card = { of = "race: links", says = "links had one alias" }
            in_45_seconds = "One row."
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
        assert_eq!((interview.kind, &*interview.in_45_seconds), (Kind::Design, "One row."));
        assert_eq!(interview.card.unwrap().of, "race: links");
        assert_eq!(interview.points[0].stage, Stage::DeepDive);
        let storage = interview.estimates[0].value().unwrap();
        assert!((storage - 146.4).abs() < 1e-9, "{storage}");
    }

    #[test]
    fn a_design_takes_45_minutes_and_a_concept_15() {
        assert_eq!((Kind::Design.all_minutes(), Kind::Concept.all_minutes()), (45, 15));
    }

    #[test]
    fn a_stage_has_one_name() {
        for stage in Stage::ALL {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.name());
        }
        for level in Level::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
    }

    #[test]
    fn a_word_that_is_not_known_is_an_error() {
        assert!(toml::from_str::<Interview>("kind = \"chat\"").is_err());
        let more = "kind = \"design\"\nclarify = []\npoint = []\nred_flag = []\nmore = 1";
        assert!(toml::from_str::<Interview>(more).unwrap_err().to_string().contains("more"));
    }
}
