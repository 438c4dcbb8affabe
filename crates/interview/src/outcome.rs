//! How good was it? Five axes, the red flags, a level with its reason, and the three points that would have raised it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    estimate::Estimate,
    session::{HABITS, Notes, Session, points},
    sheet::{Level, Point, Stage},
    subject::{Subject, command},
};

/// The result of an interview. It holds words and not references, because the chapter may change later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The answer's name.
    pub answer: String,
    /// The question.
    pub title: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub begun: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub ended: OffsetDateTime,
    /// Seconds that each stage took.
    pub seconds: BTreeMap<Stage, u64>,
    /// The five axes.
    pub axes: Vec<Axis>,
    /// The level; none if the junior's points were missing.
    pub level: Option<Level>,
    /// Why this level.
    pub reason: String,
    /// The red flags.
    pub flags: Vec<Advice>,
    /// What would have raised the level.
    pub raise: Vec<Advice>,
    /// What the reader said.
    pub notes: Notes,
}

/// One axis of the rubric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// What the reader got. A half is possible.
    pub got: f64,
    /// What there was to get.
    pub of: f64,
}

/// A sentence to learn from, and how to see that it is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advice {
    /// The sentence.
    pub says: String,
    /// What proves it.
    pub proof: Option<Proof>,
}

/// What proves a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// An experiment.
    Experiment {
        /// The answer's name.
        answer: String,
        /// The experiment's name.
        name: String,
    },
    /// Code: a file from the workspace's root, and the anchor in it.
    Code(String),
    /// Where no experiment and no code proves it: a part of the chapter.
    Part {
        /// The answer's name.
        answer: String,
        /// The part's heading.
        heading: String,
    },
}

impl Axis {
    fn new(name: &str, parts: &[(f64, usize)]) -> Self {
        let got = parts.iter().map(|part| part.0).sum();
        let of = parts.iter().map(|part| part.1 as f64).sum();
        Self { name: name.to_owned(), got, of }
    }

    /// From 0 to 1; nothing if there was nothing to get.
    pub fn share(&self) -> Option<f64> {
        (self.of > 0.0).then(|| self.got / self.of)
    }
}

impl Proof {
    /// Reads the proof of a point: an experiment's name, or `file:anchor`.
    fn of(subject: &Subject, proof: &str) -> Self {
        if proof.contains(':') {
            return Self::Code(format!("crates/{}/{proof}", subject.name));
        }
        Self::Experiment { answer: subject.name.clone(), name: proof.to_owned() }
    }

    /// The part of the chapter that teaches what is said in this stage.
    fn part(subject: &Subject, stage: Stage) -> Self {
        let heading = match stage {
            Stage::Clarify => "Ask first",
            Stage::Estimate => "Scale it",
            Stage::Design => "The design",
            Stage::DeepDive => "Break it",
            Stage::FollowUps => "Follow-ups",
            Stage::SumUp => "Say it in two minutes",
        };
        Self::Part { answer: subject.name.clone(), heading: heading.to_owned() }
    }

    /// `run it now: cargo run -- …`, or where to read.
    pub fn in_words(&self) -> String {
        match self {
            Self::Experiment { answer, name } => format!("run it now: {}", command(answer, name)),
            Self::Code(place) => format!("read {place}"),
            Self::Part { answer, heading } => {
                format!("read “{heading}” in crates/{answer}/chapter.md")
            }
        }
    }
}

impl Outcome {
    /// Judges an interview that has ended.
    pub fn of(session: &Session, subject: &Subject, now: OffsetDateTime) -> Self {
        let notes = session.notes.clone();
        let flagged = subject.sheet.red_flags.iter().filter(|it| notes.flags.contains(&it.says));
        let flags: Vec<_> = flagged
            .map(|flag| Advice {
                says: format!("“{}” {}", flag.says, flag.because),
                proof: flag.proof.as_deref().map(|proof| Proof::of(subject, proof)),
            })
            .collect();
        let Judged { level, reason, is_flagged } = judged(subject, session);
        Self {
            answer: session.answer.clone(),
            title: subject.chapter.title.clone(),
            begun: session.begun,
            ended: now,
            seconds: Stage::ALL
                .into_iter()
                .map(|stage| (stage, session.clock.used(stage, now).as_secs()))
                .collect(),
            axes: axes(session, subject),
            raise: raise(subject, session, level, is_flagged),
            level,
            reason,
            flags,
            notes,
        }
    }

    /// The level in words.
    pub fn level_in_words(&self) -> &'static str {
        self.level.map_or("below junior", Level::name)
    }

    /// The share of all axes together, from 0 to 1.
    pub fn share(&self) -> f64 {
        let shares: Vec<_> = self.axes.iter().filter_map(Axis::share).collect();
        if shares.is_empty() { 0.0 } else { shares.iter().sum::<f64>() / shares.len() as f64 }
    }
}

fn axes(session: &Session, subject: &Subject) -> Vec<Axis> {
    let notes = &session.notes;
    let of_stage = |stage: Stage| {
        let all: Vec<_> = points(&session.plan, subject, stage).collect();
        let made = all.iter().filter(|it| notes.points.contains(&it.says)).count();
        (made as f64, all.len())
    };
    let right = notes.verdicts.values().filter(|it| it.right).count();
    let good = notes.estimates.values().filter(|it| Estimate::is_right(it.off_by)).count();
    let recalled = notes.recalled.values().map(|it| it.worth()).sum();
    vec![
        Axis::new(
            "scoping",
            &[
                (notes.asked.len() as f64, subject.chapter.ask_first.len()),
                of_stage(Stage::Clarify),
            ],
        ),
        Axis::new("correctness", &[of_stage(Stage::Design), (right as f64, notes.verdicts.len())]),
        Axis::new(
            "trade-offs",
            &[
                of_stage(Stage::DeepDive),
                of_stage(Stage::FollowUps),
                (recalled, notes.recalled.len()),
            ],
        ),
        Axis::new("numbers", &[of_stage(Stage::Estimate), (good as f64, notes.estimates.len())]),
        Axis::new(
            "communication",
            &[of_stage(Stage::SumUp), (notes.habits.len() as f64, HABITS.len())],
        ),
    ]
}

/// How many points of a level were made, of how many that were asked for.
fn made(subject: &Subject, session: &Session, level: Level) -> (usize, usize) {
    let all = subject.sheet.points.iter();
    let all: Vec<_> = all.filter(|it| it.level == level && session.plan.asks_for(it)).collect();
    (all.iter().filter(|it| session.notes.points.contains(&it.says)).count(), all.len())
}

/// Two thirds of a level's points make the level, if the levels below are made too.
fn enough(all: usize) -> usize {
    (2 * all).div_ceil(3)
}

/// The level, and why.
struct Judged {
    level: Option<Level>,
    reason: String,
    /// Whether the red flags have lowered it.
    is_flagged: bool,
}

/// A red flag makes a senior a mid, two make a junior. A reader who gets most verdicts wrong is not a senior.
fn judged(subject: &Subject, session: &Session) -> Judged {
    let notes = &session.notes;
    let mut reached = None;
    let mut reason = Vec::new();
    for level in Level::ALL {
        let (got, all) = made(subject, session, level);
        let (needed, name) = (enough(all), level.name());
        if got < needed {
            reason.push(format!("{got} of {all} {name} points; {name} needs {needed}"));
            break;
        }
        reason.push(format!("{got} of {all} {name} points"));
        reached = Some(level);
    }
    let most = match notes.flags.len() {
        0 => None,
        1 => Some(Level::Mid),
        _ => Some(Level::Junior),
    };
    let is_flagged = most.is_some_and(|most| reached > Some(most));
    let mut cap = |most: Level, why: String| {
        if reached > Some(most) {
            reached = Some(most);
            reason.push(why);
        }
    };
    match notes.flags.len() {
        0 => {}
        1 => cap(Level::Mid, "one red flag, so at most mid".to_owned()),
        flags => cap(Level::Junior, format!("{flags} red flags, so at most junior")),
    }
    let (right, judged) =
        (notes.verdicts.values().filter(|it| it.right).count(), notes.verdicts.len());
    if 2 * right < judged {
        cap(Level::Mid, format!("only {right} of {judged} verdicts were right, so at most mid"));
    }
    Judged { level: reached, reason: format!("{}.", reason.join("; ")), is_flagged }
}

/// At most three: red flags that have lowered the level, then the missing points of the next level, then those of lower
/// and of higher levels, the sentences that were judged wrongly, and the other red flags. Within a level, what an
/// experiment proves comes first.
fn raise(
    subject: &Subject,
    session: &Session,
    reached: Option<Level>,
    is_flagged: bool,
) -> Vec<Advice> {
    let notes = &session.notes;
    let next = match reached {
        None => Level::Junior,
        Some(Level::Junior) => Level::Mid,
        Some(Level::Mid | Level::Senior) => Level::Senior,
    };
    let advice = |says: String, proof: Option<&str>| Advice {
        says,
        proof: proof.map(|proof| Proof::of(subject, proof)),
    };
    let flags = subject.sheet.red_flags.iter().filter(|it| notes.flags.contains(&it.says));
    let flags = flags
        .map(|it| advice(format!("Do not say “{}” {}", it.says, it.because), it.proof.as_deref()));
    let asked = subject.sheet.points.iter().filter(|it| session.plan.asks_for(it));
    let mut missing: Vec<&Point> = asked.filter(|it| !notes.points.contains(&it.says)).collect();
    missing.sort_by_key(|point| {
        let is_proved = point.proof.as_ref().is_some_and(|proof| !proof.contains(':'));
        (point.level != next, point.level, !is_proved)
    });
    let missing = missing.into_iter().map(|it| {
        let advice = advice(format!("{} ({})", it.says, it.level.name()), it.proof.as_deref());
        let part = || Proof::part(subject, it.stage);
        Advice { proof: Some(advice.proof.unwrap_or_else(part)), ..advice }
    });
    let wrong = notes.verdicts.iter().filter(|(_, it)| !it.right);
    let wrong = wrong.filter_map(|(says, _)| {
        let sentence = subject.sentence(says)?;
        let says = format!("“{says}”: {}", sentence.verdict.words().to_lowercase());
        Some(advice(says, sentence.experiments.first().map(|it| &**it)))
    });
    let (first, last): (Vec<_>, Vec<_>) = flags.partition(|_| is_flagged);
    first.into_iter().chain(missing).chain(wrong).chain(last).take(3).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        session::{
            Input,
            tests::{at, held},
        },
        step::Step,
        subject::small,
    };

    /// The result of a reader who ticks these points of each checklist, and these red flags, and chooses this.
    pub fn outcome(points: &[usize], flags: &[usize], choice: usize) -> Outcome {
        let ticks = |ticks: &[usize]| Input::Ticks(ticks.iter().copied().collect());
        let session = held(|step| match step {
            Step::Asked => ticks(&[0, 1, 2]),
            Step::Checklist(Stage::Design) => ticks(points),
            Step::Checklist(_) if points.is_empty() => ticks(&[]),
            Step::Checklist(_) => ticks(&[0]),
            Step::Flags => ticks(flags),
            Step::Habits => ticks(&[0, 1, 2, 3, 4]),
            Step::Trap(0) => Input::Choice(2),
            Step::Trap(_) | Step::BreakShown(_) | Step::FollowUpShown(_) => Input::Choice(choice),
            Step::Estimate(_) => Input::Text("10 * 100000".to_owned()),
            _ => Input::Next,
        });
        Outcome::of(&session, &small(), at(100))
    }

    #[test]
    fn who_makes_all_points_is_a_senior_on_every_axis() {
        let outcome = outcome(&[0, 1], &[], 0);
        assert_eq!(outcome.level, Some(Level::Senior), "{}", outcome.reason);
        let names: Vec<_> = outcome.axes.iter().map(|axis| &*axis.name).collect();
        assert_eq!(names, ["scoping", "correctness", "trade-offs", "numbers", "communication"]);
        for axis in &outcome.axes {
            assert_eq!(axis.share(), Some(1.0), "{axis:?}");
        }
        assert!(outcome.raise.is_empty(), "{:?}", outcome.raise);
    }

    #[test]
    fn who_makes_none_is_below_junior_and_hears_three_points_of_a_junior_first() {
        let outcome = outcome(&[], &[], 2);
        assert_eq!((outcome.level, outcome.level_in_words()), (None, "below junior"));
        assert!(outcome.reason.contains("0 of 3 junior points; junior needs 2"));
        assert_eq!(outcome.raise.len(), 3);
        let first = &outcome.raise[0];
        assert_eq!(first.says, "Checks for an overflow. (junior)", "an experiment proves it");
        let words = first.proof.as_ref().unwrap().in_words();
        assert_eq!(words, "run it now: cargo run -- sums experiment overflow");
        assert!(outcome.raise.iter().all(|it| it.says.ends_with("(junior)")), "{outcome:?}");
        let words: Vec<_> =
            outcome.raise.iter().map(|it| it.proof.as_ref().unwrap().in_words()).collect();
        assert_eq!(words[1], "read “Ask first” in crates/sums/chapter.md");
        assert_eq!(words[2], "read “Scale it” in crates/sums/chapter.md");
    }

    #[test]
    fn a_red_flag_that_lowers_nothing_leaves_the_three_points_to_what_does() {
        let outcome = outcome(&[], &[0, 1], 2);
        assert_eq!(outcome.level, None);
        assert!(outcome.raise.iter().all(|it| it.says.ends_with("(junior)")), "{outcome:?}");
        assert_eq!(outcome.flags.len(), 2);
    }

    #[test]
    fn a_missing_point_of_the_next_level_is_named_with_its_experiment() {
        let outcome = outcome(&[0], &[], 0);
        assert_eq!(outcome.level, Some(Level::Junior), "{}", outcome.reason);
        assert!(outcome.reason.ends_with("1 of 2 mid points; mid needs 2."), "{}", outcome.reason);
        assert_eq!(outcome.raise[0].says, "Streams the numbers. (mid)");
    }

    #[test]
    fn a_point_that_nobody_asked_for_counts_neither_for_nor_against() {
        let mut subject = small();
        let session = held(|step| match step {
            Step::Checklist(Stage::FollowUps) => Input::Ticks([].into()),
            Step::Checklist(_) => Input::Ticks([0].into()),
            Step::Estimate(_) => Input::Text("864,000".to_owned()),
            Step::Trap(_) | Step::BreakShown(_) | Step::FollowUpShown(_) => Input::Choice(0),
            _ => Input::Next,
        });
        let trade_offs = |subject: &Subject| {
            let outcome = Outcome::of(&session, subject, at(100));
            let says = |it: &Advice| it.says.starts_with("Sums the parts");
            (outcome.axes[2].of, outcome.raise.iter().any(says))
        };
        assert_eq!(trade_offs(&subject), (4.0, true));
        let point = subject.sheet.points.iter_mut().find(|it| it.stage == Stage::FollowUps);
        point.unwrap().follow_up = Some("And in parallel?".to_owned());
        assert_eq!(trade_offs(&subject), (3.0, false), "it was not drawn");
    }

    #[test]
    fn red_flags_and_wrong_verdicts_cap_the_level_and_say_so() {
        let one = outcome(&[0, 1], &[0], 0);
        assert_eq!(one.level, Some(Level::Mid));
        assert!(one.reason.contains("one red flag"), "{}", one.reason);
        assert!(one.raise[0].says.contains("It always fits."), "{:?}", one.raise);
        assert_eq!(one.flags.len(), 1);
        let two = outcome(&[0, 1], &[0, 1], 0);
        assert_eq!(two.level, Some(Level::Junior), "{}", two.reason);
    }

    #[test]
    fn a_wrongly_judged_sentence_is_a_point_to_learn() {
        let outcome = outcome(&[0, 1], &[], 1);
        assert_eq!(outcome.raise[0].says, "“Addition is quick”: holds");
        assert!(outcome.axes[1].share().unwrap() < 1.0);
        assert!((outcome.axes[2].got - 3.0).abs() < 1e-9, "two halves and two points");
    }
}
