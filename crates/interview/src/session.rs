//! What has happened so far? One interview, from the opening to the result: a state and the inputs that move it on.
//!
//! Invariant: nothing here reads a clock, a file or a terminal. The terminal and the pages drive the same session.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;

use crate::{
    chapter::Verdict,
    clock::Clock,
    said::NoNumber,
    sheet::{Point, Stage},
    step::{Plan, Step},
    subject::Subject,
};

/// An interview that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The answer's name.
    pub answer: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub begun: OffsetDateTime,
    /// What is asked.
    pub plan: Plan,
    /// How many inputs were taken. It is also the number of the step.
    pub taken: usize,
    /// The clocks.
    pub clock: Clock,
    /// When the reader was last here.
    #[serde(with = "time::serde::rfc3339")]
    pub seen: OffsetDateTime,
    /// Words of the current step that the reader has written and not handed in.
    #[serde(default)]
    pub draft: String,
    /// What the reader said.
    pub notes: Notes,
}

/// A page or a terminal says more often than this that the reader is here.
const AWAY: time::Duration = time::Duration::minutes(2);

/// What the reader said and ticked, by the words of the chapter and of `interview.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// Their own questions.
    pub questions: String,
    /// The chapter's questions that they asked.
    pub asked: BTreeSet<String>,
    /// Their estimates, with the factor by which each is off. No factor: it was skipped.
    pub estimates: BTreeMap<String, Guess>,
    /// Their design, or explanation.
    pub design: String,
    /// Their answer to the interviewer's second question.
    #[serde(default)]
    pub later: String,
    /// Their verdicts.
    pub verdicts: BTreeMap<String, Judgement>,
    /// How well they knew what breaks, and the follow-ups.
    pub recalled: BTreeMap<String, Recall>,
    /// Their last words.
    pub sum_up: String,
    /// The points that they made.
    pub points: BTreeSet<String>,
    /// The red flags that they have shown.
    pub flags: BTreeSet<String>,
    /// The good habits that they kept.
    pub habits: BTreeSet<String>,
}

/// An estimate of the reader's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guess {
    /// As it was written.
    pub said: String,
    /// By which factor it is off; nothing for a skipped one, or for one that is no size at all, such as 0.
    pub off_by: Option<f64>,
}

/// A verdict of the reader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// What they said.
    pub said: Verdict,
    /// Whether that is our verdict.
    pub right: bool,
}

/// How well something was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recall {
    /// Said it.
    Said,
    /// Said a part of it.
    Partly,
    /// Did not say it.
    Missed,
}

impl Recall {
    /// All three, in the order in which the reader chooses.
    pub const ALL: [Self; 3] = [Self::Said, Self::Partly, Self::Missed];

    /// As the reader chooses it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Said => "I said it",
            Self::Partly => "I said a part of it",
            Self::Missed => "I did not say it",
        }
    }

    /// What it counts.
    pub fn worth(self) -> f64 {
        match self {
            Self::Said => 1.0,
            Self::Partly => 0.5,
            Self::Missed => 0.0,
        }
    }
}

/// The good habits: each is the opposite of a mistake that interviewers name most often.
pub const HABITS: [&str; 5] = [
    "I answered what was asked, and did not ramble.",
    "I asked before I answered.",
    "I named edge cases: empty input, bad input, many at once.",
    "I thought aloud, also when I was unsure.",
    "I named what nobody asked for: load, security, what happens when a part fails.",
];

/// What the reader answers to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Words, or a number. Empty if the reader only spoke.
    Text(String),
    /// The numbers of the items that are ticked, from 0.
    Ticks(BTreeSet<usize>),
    /// The number of the chosen item, from 0.
    Choice(usize),
    /// Nothing: go on.
    Next,
}

/// Why an input was refused. The session is as before.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// An estimate that cannot be read.
    #[error(transparent)]
    NoNumber(#[from] NoNumber),
    /// There are fewer items.
    #[error("there is no item {0}: choose one from 1 to {1}")]
    NoItem(usize, usize),
    /// Another kind of answer is needed.
    #[error("this step wants {0}")]
    Wants(&'static str),
}

impl Session {
    /// Begins an interview.
    pub fn begin(subject: &Subject, plan: Plan, now: OffsetDateTime) -> Self {
        Self {
            answer: subject.name.clone(),
            begun: now,
            plan,
            taken: 0,
            clock: Clock::start(Stage::Clarify, now),
            seen: now,
            draft: String::new(),
            notes: Notes::default(),
        }
    }

    /// The current step.
    pub fn step(&self) -> Step {
        Step::all(&self.plan).get(self.taken).copied().unwrap_or(Step::Result)
    }

    /// Whether only the result is left.
    pub fn is_over(&self) -> bool {
        self.step() == Step::Result
    }

    /// Whether the reader has stopped the clock. While the reader looks back, it is stopped anyway.
    pub fn is_paused(&self) -> bool {
        self.step().is_timed() && self.clock.is_paused()
    }

    /// Stops the clock.
    pub fn pause(&mut self, now: OffsetDateTime) {
        self.clock.pause(now);
        self.seen = now;
    }

    /// Goes on after a pause.
    pub fn resume(&mut self, now: OffsetDateTime) {
        if self.step().is_timed() {
            self.clock.resume(now);
        }
        self.seen = now;
    }

    /// Goes on after the program was ended, perhaps without a word: the time in between does not count.
    pub fn come_back(&mut self, now: OffsetDateTime) {
        self.clock.pause(self.seen);
        self.resume(now);
    }

    /// The reader is here, or was a moment ago. After a longer absence the time in between does not count: the machine
    /// has slept, or the program was ended.
    pub fn here(&mut self, now: OffsetDateTime) {
        if self.is_away(now) {
            self.come_back(now);
        } else {
            self.seen = now;
        }
    }

    /// Whether the clock runs although nobody was here for a while.
    pub fn is_away(&self, now: OffsetDateTime) -> bool {
        !self.clock.is_paused() && now - self.seen > AWAY
    }

    /// This step of this interview. A form names the place for which it was made.
    pub fn place(&self) -> String {
        format!("{}-{}", self.begun.unix_timestamp(), self.taken)
    }

    /// Takes an input, and goes to the next step. A refused input changes nothing.
    pub fn take(
        &mut self,
        subject: &Subject,
        input: &Input,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        let step = self.step();
        self.note(subject, step, input)?;
        if step == Step::Result {
            return Ok(());
        }
        self.taken += 1;
        self.seen = now;
        self.draft.clear();
        let next = self.step();
        self.clock.pause(now);
        if let (true, Some(stage)) = (next.is_timed(), next.stage()) {
            self.clock.enter(stage, now);
        }
        Ok(())
    }

    fn note(&mut self, subject: &Subject, step: Step, input: &Input) -> Result<(), Refused> {
        let notes = &mut self.notes;
        match step {
            Step::Ask => notes.questions = text(input)?,
            Step::Asked => {
                let all = subject.chapter.ask_first.iter().map(|it| &it.ask);
                notes.asked = ticked(input, all)?;
            }
            Step::Design => notes.design = text(input)?,
            Step::Later => notes.later = text(input)?,
            Step::SumUp => notes.sum_up = text(input)?,
            Step::Checklist(stage) => {
                let points = points(&self.plan, subject, stage);
                let new = ticked(input, points.map(|point| &point.says))?;
                notes.points.extend(new);
            }
            Step::Flags => {
                notes.flags = ticked(input, subject.sheet.red_flags.iter().map(|it| &it.says))?;
            }
            Step::Habits => {
                let all = HABITS.map(str::to_owned);
                notes.habits = ticked(input, all.iter())?;
            }
            Step::Estimate(at) => {
                let said = text(input)?;
                let of = self.plan.estimates.get(at);
                if let Some(estimate) = of.and_then(|of| subject.estimate(of)) {
                    let off_by = match &*said {
                        "" => None,
                        said => Some(estimate.off_by(said)?).filter(|off| off.is_finite()),
                    };
                    notes.estimates.insert(estimate.of.clone(), Guess { said, off_by });
                }
            }
            Step::Trap(at) => {
                let said = chosen(input, &Verdict::ALL)?;
                let sentence = self.plan.traps.get(at).and_then(|says| subject.sentence(says));
                if let Some(sentence) = sentence {
                    let judgement = Judgement { said, right: said == sentence.verdict };
                    notes.verdicts.insert(sentence.says.clone(), judgement);
                }
            }
            Step::BreakShown(at) => {
                let recall = chosen(input, &Recall::ALL)?;
                let what = self.plan.breaks.get(at).cloned();
                notes.recalled.extend(what.map(|what| (what, recall)));
            }
            Step::FollowUpShown(at) => {
                let recall = chosen(input, &Recall::ALL)?;
                let question = self.plan.follow_ups.get(at).cloned();
                notes.recalled.extend(question.map(|question| (question, recall)));
            }
            // The reader has spoken, or has read.
            Step::Answers
            | Step::Missed
            | Step::Estimated(_)
            | Step::TrapShown(_)
            | Step::Break(_)
            | Step::FollowUp(_)
            | Step::Result => {}
        }
        Ok(())
    }
}

/// The points of a stage. A point that answers a follow-up which was not drawn is left out.
pub fn points<'a>(
    plan: &'a Plan,
    subject: &'a Subject,
    stage: Stage,
) -> impl Iterator<Item = &'a Point> {
    let all = subject.sheet.points.iter();
    all.filter(move |point| point.stage == stage && plan.asks_for(point))
}

/// The words of an input. A reader who only speaks goes on without any.
fn text(input: &Input) -> Result<String, Refused> {
    match input {
        Input::Text(text) => Ok(text.trim().to_owned()),
        Input::Next => Ok(String::new()),
        Input::Ticks(_) | Input::Choice(_) => Err(Refused::Wants("words")),
    }
}

fn ticked<'a>(
    input: &Input,
    items: impl Iterator<Item = &'a String>,
) -> Result<BTreeSet<String>, Refused> {
    let ticks = match input {
        Input::Ticks(ticks) => ticks,
        Input::Next => &BTreeSet::new(),
        Input::Text(_) | Input::Choice(_) => return Err(Refused::Wants("ticks")),
    };
    let items: Vec<_> = items.collect();
    if let Some(none) = ticks.iter().find(|tick| **tick >= items.len()) {
        return Err(Refused::NoItem(none + 1, items.len()));
    }
    Ok(ticks.iter().map(|tick| items[*tick].clone()).collect())
}

fn chosen<T: Copy>(input: &Input, items: &[T]) -> Result<T, Refused> {
    let Input::Choice(choice) = input else { return Err(Refused::Wants("one of the choices")) };
    items.get(*choice).copied().ok_or(Refused::NoItem(choice + 1, items.len()))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::subject::small;

    pub fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second)
    }

    pub fn plan() -> Plan {
        Plan {
            estimates: vec!["sums a day".to_owned()],
            checklists: Stage::ALL.to_vec(),
            later: String::new(),
            traps: vec!["A sum fits into 32 bits".to_owned(), "Addition is quick".to_owned()],
            breaks: vec!["Somebody sends a text".to_owned()],
            follow_ups: vec!["And fractions?".to_owned()],
        }
    }

    fn ticks(ticks: &[usize]) -> Input {
        Input::Ticks(ticks.iter().copied().collect())
    }

    /// A good answer to each step.
    fn good(step: Step) -> Input {
        match step {
            Step::Ask | Step::Design | Step::Later | Step::SumUp => Input::Text("words".to_owned()),
            Step::Estimate(_) => Input::Text("864,000".to_owned()),
            Step::Asked => ticks(&[0, 2]),
            Step::Checklist(_) => ticks(&[0]),
            Step::Habits => ticks(&[1]),
            Step::Flags => ticks(&[]),
            Step::Trap(0) => Input::Choice(2),
            Step::Trap(_) | Step::BreakShown(_) | Step::FollowUpShown(_) => Input::Choice(1),
            _ => Input::Next,
        }
    }

    /// An interview that was answered in this way, a second for each step.
    pub fn held(answer: impl Fn(Step) -> Input) -> Session {
        let subject = small();
        let mut session = Session::begin(&subject, plan(), at(0));
        for second in 1.. {
            let step = session.step();
            if step == Step::Result {
                break;
            }
            session.take(&subject, &answer(step), at(second)).unwrap();
        }
        session
    }

    #[test]
    fn an_interview_notes_what_the_reader_said() {
        let session = held(good);
        let Notes { asked, estimates, verdicts, recalled, points, .. } = &session.notes;
        let asked: Vec<_> = asked.iter().map(|it| &**it).collect();
        assert_eq!(asked, ["How large are they?", "How many are there?"]);
        assert_eq!(estimates["sums a day"].off_by, Some(1.0));
        assert!(verdicts["A sum fits into 32 bits"].right);
        assert!(!verdicts["Addition is quick"].right);
        assert_eq!(recalled["And fractions?"], Recall::Partly);
        assert_eq!(points.len(), 6, "one of each stage");
        // Seven steps are timed: ask, estimate, design, two traps, break, follow-up, sum-up.
        assert_eq!(session.clock.total(at(1_000)).as_secs(), 8);
    }

    #[test]
    fn a_refused_input_changes_nothing() {
        let subject = small();
        let mut session = Session::begin(&subject, plan(), at(0));
        let wants_words = session.take(&subject, &Input::Choice(0), at(1)).unwrap_err();
        assert_eq!(wants_words, Refused::Wants("words"));
        session.take(&subject, &Input::Next, at(1)).unwrap();
        let before = session.clone();
        let refused = session.take(&subject, &ticks(&[3]), at(2)).unwrap_err();
        assert_eq!(refused.to_string(), "there is no item 4: choose one from 1 to 3");
        assert_eq!(session, before);
    }

    #[test]
    fn a_skipped_estimate_is_noted_without_a_factor() {
        let session = held(|step| match step {
            Step::Estimate(_) => Input::Next,
            other => good(other),
        });
        assert_eq!(session.notes.estimates["sums a day"].off_by, None);
    }

    #[test]
    fn a_night_between_two_sittings_does_not_count() {
        let subject = small();
        let mut session = Session::begin(&subject, plan(), at(0));
        session.pause(at(10));
        session.resume(at(20));
        session.seen = at(25);
        // The program was killed. The next day:
        session.come_back(at(86_400));
        assert_eq!(session.clock.total(at(86_405)).as_secs(), 10 + 5 + 5);
    }

    #[test]
    fn the_clock_of_a_reader_who_is_here_runs_and_that_of_one_who_was_away_does_not() {
        let mut session = Session::begin(&small(), plan(), at(0));
        session.here(at(60));
        session.here(at(120));
        assert_eq!(session.clock.total(at(130)).as_secs(), 130);
        assert!(session.is_away(at(600)) && !session.is_away(at(200)));
        session.here(at(600));
        assert_eq!(session.clock.total(at(610)).as_secs(), 130);
        session.pause(at(610));
        session.here(at(9_000));
        assert!(session.is_paused(), "only the reader ends a pause");
    }

    #[test]
    fn an_interview_stays_at_its_step_when_interview_toml_gets_another_estimate() {
        let mut subject = small();
        let mut session = Session::begin(&subject, plan(), at(0));
        while session.step() != Step::Design {
            let input = good(session.step());
            session.take(&subject, &input, at(1)).unwrap();
        }
        let more = subject.sheet.estimates[0].clone();
        subject
            .sheet
            .estimates
            .insert(0, crate::estimate::Estimate { of: "new".to_owned(), ..more });
        assert_eq!(session.step(), Step::Design);
        session.take(&subject, &good(Step::Design), at(2)).unwrap();
        assert_eq!(session.step(), Step::Checklist(Stage::Design));
    }

    #[test]
    fn a_session_is_the_same_after_a_journey_through_a_file() {
        let session = held(good);
        let text = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&text).unwrap(), session);
    }

    #[test]
    fn the_second_question_is_asked_after_the_first_was_answered() {
        let subject = small();
        let plan = Plan { later: "And fractions?".to_owned(), ..plan() };
        let mut session = Session::begin(&subject, plan, at(0));
        while !matches!(session.step(), Step::Later | Step::Result) {
            session.take(&subject, &good(session.step()), at(1)).unwrap();
        }
        assert_eq!((session.step(), &*session.notes.design), (Step::Later, "words"));
        session.take(&subject, &Input::Text("They round.".to_owned()), at(2)).unwrap();
        assert_eq!(session.notes.later, "They round.");
        assert_eq!(session.step(), Step::Checklist(Stage::Design));
    }

    #[test]
    fn a_sentence_that_has_gone_from_the_chapter_stands_in_nobodys_way() {
        let subject = small();
        let gone = Plan { traps: vec!["Gone".to_owned()], ..Plan::default() };
        let mut session = Session::begin(&subject, gone, at(0));
        while !session.is_over() {
            let step = session.step();
            session.take(&subject, &good(step), at(1)).unwrap();
        }
        assert!(session.notes.verdicts.is_empty());
    }

    proptest! {
        /// Whatever is typed: no input breaks a session, and each is either taken or changes nothing.
        #[test]
        fn an_input_moves_on_by_one_step_or_changes_nothing(
            inputs in proptest::collection::vec((0_u8..4, 0_usize..8, ".{0,12}"), 0..80),
        ) {
            let subject = small();
            let mut session = Session::begin(&subject, plan(), at(0));
            for (second, (kind, number, words)) in inputs.into_iter().enumerate() {
                let input = match kind {
                    0 => Input::Text(words),
                    1 => ticks(&[number]),
                    2 => Input::Choice(number),
                    _ => Input::Next,
                };
                let before = session.clone();
                let now = at(i64::try_from(second).unwrap());
                match session.take(&subject, &input, now) {
                    Ok(()) if before.is_over() => prop_assert_eq!(&session, &before),
                    Ok(()) => prop_assert_eq!(session.taken, before.taken + 1),
                    Err(_) => prop_assert_eq!(&session, &before),
                }
            }
        }
    }
}
