//! What does the mock interview take from a chapter? The question, what to ask first, the verdicts, what breaks, the
//! follow-ups, the spoken answer and the drawn design.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::markdown::plain;

/// The parts of a chapter that an interview uses. All texts are Markdown unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Chapter {
    /// The heading, as plain text.
    pub title: String,
    /// How hard the question is.
    pub difficulty: Difficulty,
    /// The words with which the interviewer opens.
    pub question: String,
    /// What the interviewer asks some minutes later; empty if the opening is all.
    pub later: String,
    /// What to ask first.
    pub ask_first: Vec<Ask>,
    /// The answer as one would say it in two minutes.
    pub spoken: String,
    /// The sentences that everybody repeats.
    pub sentences: Vec<Sentence>,
    /// The first diagram of the design, in the language of Mermaid.
    pub diagram: Option<String>,
    /// What fails first.
    pub breaks: Vec<Break>,
    /// What is asked afterwards.
    pub follow_ups: Vec<FollowUp>,
}

/// How hard a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difficulty {
    /// For every candidate.
    Beginner,
    /// For candidates who have built a service.
    Intermediate,
    /// For candidates who have run a service.
    Advanced,
}

/// A question that a good candidate asks before answering.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The question, as plain text.
    pub ask: String,
    /// Why it matters.
    pub because: String,
}

/// A sentence that everybody repeats, and what is true about it.
#[derive(Clone, Debug)]
pub struct Sentence {
    /// The sentence, as plain text.
    pub says: String,
    /// Our verdict.
    pub verdict: Verdict,
    /// The verdict with its reason.
    pub reason: String,
    /// The experiments that prove it, by name.
    pub experiments: Vec<String>,
}

/// The three verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is true.
    Holds,
    /// It is true under a condition.
    WithinLimits,
    /// It is false.
    Wrong,
}

/// A row of *Break it*.
#[derive(Clone, Debug)]
pub struct Break {
    /// What fails first, as plain text.
    pub what: String,
    /// How it shows.
    pub shows: String,
    /// What to do.
    pub remedy: String,
}

/// A question that comes after the answer.
#[derive(Clone, Debug)]
pub struct FollowUp {
    /// The question, as plain text.
    pub question: String,
    /// The answer.
    pub answer: String,
}

impl Difficulty {
    /// Every one, the easiest first.
    pub const ALL: [Self; 3] = [Self::Beginner, Self::Intermediate, Self::Advanced];

    /// In a word, as the chapters write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Beginner => "beginner",
            Self::Intermediate => "intermediate",
            Self::Advanced => "advanced",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

impl Verdict {
    /// All three, in the order in which the reader chooses.
    pub const ALL: [Self; 3] = [Self::Holds, Self::WithinLimits, Self::Wrong];

    /// As the chapters write it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Holds => "Holds",
            Self::WithinLimits => "Holds within limits",
            Self::Wrong => "Wrong",
        }
    }

    fn of(cell: &str) -> Option<Self> {
        let bold = cell.strip_prefix("**")?.split("**").next()?;
        Self::ALL.into_iter().find(|one| one.words() == bold)
    }
}

impl FollowUp {
    /// Whether an interviewer would ask it. Which libraries other languages have is told to readers only.
    pub fn is_asked(&self) -> bool {
        self.question != "In your language?"
    }
}

impl Chapter {
    /// Reads the chapter of this answer.
    pub fn parse(text: &str, answer: &str) -> anyhow::Result<Self> {
        let title = text.lines().find_map(|line| line.strip_prefix("# ")).context("no heading")?;
        let level = text.split_once("*Level: ").map_or("", |(_, rest)| rest);
        let level = level.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let asked = part(text, "The question").lines().map(str::trim);
        let asked = asked.filter_map(|line| line.strip_prefix('>')).map(str::trim);
        let (question, later) = opening(&asked.collect::<Vec<_>>().join("\n"));
        ensure!(!question.is_empty(), "*The question* quotes nobody");
        let breaks = rows(part(text, "Break it")).filter_map(|row| {
            let [what, shows, remedy] = <[String; 3]>::try_from(row).ok()?;
            Some(Break { what: plain(&what), shows, remedy })
        });
        Ok(Self {
            title: plain(title),
            difficulty: Difficulty::named(level).context("it says no *Level: …*")?,
            question,
            later,
            ask_first: rows(part(text, "Ask first")).filter_map(ask).collect(),
            spoken: part(text, "Say it in two minutes").trim().to_owned(),
            sentences: rows(part(text, "The textbook answer, checked"))
                .map(|row| sentence(&row, answer))
                .collect::<anyhow::Result<_>>()?,
            diagram: diagram(part(text, "The design")),
            breaks: breaks.collect(),
            follow_ups: follow_ups(part(text, "Follow-ups")),
        })
    }
}

/// Most chapters ask twice: `"…" And, ten minutes later: "…"`. The second question must not be given away by the first.
fn opening(asked: &str) -> (String, String) {
    let both = asked.split_once(" minutes later:").and_then(|(first, later)| {
        let (first, _) = first.rsplit_once("And, ")?;
        Some((first.trim().to_owned(), later.trim().to_owned()))
    });
    both.unwrap_or_else(|| (asked.to_owned(), String::new()))
}

fn ask(row: Vec<String>) -> Option<Ask> {
    let [ask, because] = <[String; 2]>::try_from(row).ok()?;
    Some(Ask { ask, because })
}

fn sentence(row: &[String], answer: &str) -> anyhow::Result<Sentence> {
    let [says, reason, see] = row else {
        anyhow::bail!("a row of the verdicts has not three cells: {row:?}");
    };
    let verdict = Verdict::of(reason).with_context(|| format!("no verdict: {reason}"))?;
    let place = format!("](#{answer}-");
    let experiments = see.split(&place).skip(1).filter_map(|rest| rest.split(')').next());
    Ok(Sentence {
        says: plain(says).trim_matches(['"', '“', '”']).to_owned(),
        verdict,
        reason: reason.clone(),
        experiments: experiments.map(str::to_owned).collect(),
    })
}

fn diagram(design: &str) -> Option<String> {
    let (_, rest) = design.split_once("```mermaid\n")?;
    Some(rest.split("```").next()?.trim_end().to_owned())
}

/// Each begins with its question in bold. A heading ends them.
fn follow_ups(text: &str) -> Vec<FollowUp> {
    let mut all: Vec<FollowUp> = Vec::new();
    for paragraph in text.split("\n\n").map(str::trim).filter(|it| !it.is_empty()) {
        if paragraph.starts_with('#') {
            break;
        }
        let question = paragraph.strip_prefix("**").and_then(|rest| rest.split_once("**"));
        match (question, all.last_mut()) {
            (Some((question, answer)), _) => {
                let (question, answer) = (plain(question), answer.trim().to_owned());
                all.push(FollowUp { question, answer });
            }
            (None, Some(last)) => last.answer += &format!("\n\n{paragraph}"),
            (None, None) => {}
        }
    }
    all
}

/// The text of a part, without its heading; empty if there is no such part.
pub fn part<'a>(chapter: &'a str, name: &str) -> &'a str {
    let part = chapter.split("\n## ").find_map(|part| part.strip_prefix(name)?.strip_prefix('\n'));
    part.unwrap_or_default()
}

/// The rows of the first table in a text, without its head, cell by cell.
pub fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    let table = text.lines().skip_while(|line| !line.starts_with('|'));
    table.take_while(|line| line.starts_with('|')).skip(2).map(|row| {
        let cells = row.trim_matches('|').replace("\\|", "\u{0}");
        cells.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    })
}

/// A small chapter, for the tests of this crate.
#[cfg(test)]
pub const SMALL: &str = include_str!("../tests/workspace/crates/sums/chapter.md");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_chapter_is_found() {
        let chapter = Chapter::parse(SMALL, "sums").unwrap();
        assert_eq!(chapter.title, "How do you add two numbers?");
        assert_eq!(chapter.difficulty, Difficulty::Beginner);
        assert!(chapter.question.starts_with("\"Add two numbers"), "{}", chapter.question);
        assert_eq!((chapter.ask_first.len(), chapter.breaks.len()), (3, 3));
        assert_eq!(chapter.breaks[0].what, "The sum is too large");
        assert!(chapter.diagram.unwrap().contains("one --> sum"));
        let first = &chapter.sentences[0];
        assert_eq!((&*first.says, first.verdict), ("A sum fits into 32 bits", Verdict::Wrong));
        assert_eq!(first.experiments, ["overflow", "many"]);
        let questions: Vec<_> = chapter.follow_ups.iter().map(|it| &*it.question).collect();
        assert_eq!(questions, ["And negative ones?", "And fractions?", "And in parallel?"]);
        assert!(chapter.follow_ups[1].answer.ends_with("a second paragraph."));
    }

    #[test]
    fn a_second_question_is_not_a_part_of_the_opening() {
        let chapter = Chapter::parse(SMALL, "sums").unwrap();
        assert_eq!(chapter.later, "");
        let text = SMALL.replace(
            "what breaks?\"",
            "what breaks?\" And, ten minutes later:\n> \"Now there are fractions.\" \"And texts?\"",
        );
        let chapter = Chapter::parse(&text, "sums").unwrap();
        assert!(chapter.question.ends_with("what breaks?\""), "{}", chapter.question);
        assert_eq!(chapter.later, "\"Now there are fractions.\" \"And texts?\"");
    }

    #[test]
    fn a_chapter_that_lacks_something_says_what() {
        for (good, bad, problem) in [
            ("*Level: beginner*", "", "it says no *Level"),
            ("> ", "", "quotes nobody"),
            ("**Wrong**", "**False**", "no verdict"),
        ] {
            let text = SMALL.replace(good, bad);
            let error = Chapter::parse(&text, "sums").unwrap_err().to_string();
            assert!(error.contains(problem), "{problem}: {error}");
        }
    }
}
