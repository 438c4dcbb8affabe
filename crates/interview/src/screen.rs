//! What does the reader see at a step? The words, and what is wanted. The terminal prints it, and a page makes a form
//! of it.

use crate::{
    chapter::Verdict,
    estimate::Estimate,
    markdown::literal,
    said::written,
    session::{HABITS, Recall, Session, points},
    sheet::{Kind, Point, Stage},
    step::Step,
    subject::Subject,
};

/// What is shown at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    /// What this step is about.
    pub heading: String,
    /// What is said, in order.
    pub says: Vec<Say>,
    /// What the reader does.
    pub wants: Wants,
}

/// A piece of a screen. The texts are Markdown, unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// The program speaks.
    Text(String),
    /// The interviewer speaks.
    Interviewer(String),
    /// The reader's own words, which are plain text.
    Own(String),
    /// A list.
    List(Vec<String>),
    /// A longer text that a page opens when the reader wants it.
    Folded {
        /// What it is, as plain text.
        summary: String,
        /// The text.
        text: String,
    },
    /// A diagram in the language of Mermaid.
    Diagram(String),
    /// An experiment to run.
    Experiment {
        /// The answer's name.
        answer: String,
        /// The experiment's name.
        name: String,
    },
}

/// What the reader is to do. The items are plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Words of several lines, or none if the reader only speaks.
    Text,
    /// A number.
    Number,
    /// Tick what is true.
    Ticks(Vec<String>),
    /// Choose one.
    Choice(Vec<String>),
    /// Say it aloud, and then open the answer.
    Aloud,
    /// Read, and go on.
    Next,
    /// Nothing: it is over.
    Nothing,
}

impl Session {
    /// What is shown now.
    pub fn screen(&self, subject: &Subject) -> Screen {
        let step = self.step();
        let (heading, says, wants) = match step {
            Step::Ask => opening(subject),
            Step::Asked => self.asked(subject),
            Step::Answers => self.answers(subject),
            Step::Missed => self.missed(subject),
            Step::Estimate(at) => self.estimate(subject, at),
            Step::Estimated(at) => self.estimated(subject, at),
            Step::Design => design(subject),
            Step::Later => self.later(),
            Step::Trap(at) => self.trap(at),
            Step::TrapShown(at) => self.trap_shown(subject, at),
            Step::Break(at) => self.breaks(at),
            Step::BreakShown(at) => self.break_shown(subject, at),
            Step::FollowUp(at) => self.follow_up(at),
            Step::FollowUpShown(at) => self.follow_up_shown(subject, at),
            Step::SumUp => sum_up(subject),
            Step::Checklist(stage) => self.checklist(subject, stage),
            Step::Flags => flags(subject),
            Step::Habits => habits(),
            Step::Result => ("The result".to_owned(), Vec::new(), Wants::Nothing),
        };
        Screen { heading, says, wants }
    }

    fn asked(&self, subject: &Subject) -> Parts {
        let items = subject.chapter.ask_first.iter().map(|it| it.ask.clone()).collect();
        let says = vec![
            own(&self.notes.questions),
            Say::Text("Which of these did you ask, in whatever words? Tick only those.".to_owned()),
        ];
        ("What you asked".to_owned(), says, Wants::Ticks(items))
    }

    fn answers(&self, subject: &Subject) -> Parts {
        let asked = subject.sheet.clarify.iter().filter(|it| self.notes.asked.contains(&it.ask));
        let mut says: Vec<_> = asked
            .flat_map(|it| {
                [Say::Text(format!("*{}*", it.ask)), Say::Interviewer(it.answer.clone())]
            })
            .collect();
        if says.is_empty() {
            says.push(Say::Interviewer("You asked nothing, so I tell you nothing.".to_owned()));
        }
        ("What the interviewer answers".to_owned(), says, Wants::Next)
    }

    fn missed(&self, subject: &Subject) -> Parts {
        let asked = &self.notes.asked;
        let missed = subject.chapter.ask_first.iter().filter(|it| !asked.contains(&it.ask));
        let mut says: Vec<_> = missed
            .flat_map(|it| {
                let answer = subject.sheet.clarify.iter().find(|known| known.ask == it.ask);
                let answer = answer.map(|known| Say::Interviewer(known.answer.clone()));
                let asked = [Say::Text(format!("**{}**", it.ask)), Say::Text(it.because.clone())];
                asked.into_iter().chain(answer)
            })
            .collect();
        let first = if says.is_empty() {
            "Nothing is missing: you asked all of them."
        } else {
            "Each with its reason, and with what the interviewer would have said."
        };
        says.insert(0, Say::Text(first.to_owned()));
        ("What you should have asked too".to_owned(), says, Wants::Next)
    }

    fn estimate(&self, subject: &Subject, at: usize) -> Parts {
        let Some(estimate) = self.estimate_of(subject, at) else { return gone() };
        let given = estimate.given.iter();
        let given =
            given.map(|(name, value)| format!("{}: {}", name.replace('_', " "), written(*value)));
        let unit = match estimate.unit() {
            unit if unit.is_empty() || unit == estimate.of => String::new(),
            unit => format!(" Say it as: … {unit}."),
        };
        let words = format!("Estimate: **{}**.{unit} You know:", estimate.of);
        let number = format!("Estimate {} of {}", at + 1, self.plan.estimates.len());
        (number, vec![Say::Interviewer(words), Say::List(given.collect())], Wants::Number)
    }

    fn estimate_of<'a>(&self, subject: &'a Subject, at: usize) -> Option<&'a Estimate> {
        subject.estimate(self.plan.estimates.get(at)?)
    }

    fn estimated(&self, subject: &Subject, at: usize) -> Parts {
        let Some(estimate) = self.estimate_of(subject, at) else { return gone() };
        let guess = self.notes.estimates.get(&estimate.of);
        let said = guess.map_or("", |guess| &*guess.said);
        let verdict = match guess.and_then(|guess| guess.off_by) {
            _ if said.is_empty() => "Skipped.".to_owned(),
            None => "An estimate must be above zero.".to_owned(),
            off if Estimate::is_right(off) => "Right.".to_owned(),
            Some(off) => format!("Off by a factor of {}.", crate::measured::rounded(off)),
        };
        let own = (!said.is_empty()).then(|| Say::Own(said.to_owned()));
        let shown = [Say::Text(format!("**{verdict}**")), Say::Text(estimate.shown())];
        let says = own.into_iter().chain(shown).collect();
        ("The formula".to_owned(), says, Wants::Next)
    }

    fn later(&self) -> Parts {
        let says = vec![Say::Interviewer(self.plan.later.clone())];
        ("The interviewer asks more".to_owned(), says, Wants::Text)
    }

    fn trap(&self, at: usize) -> Parts {
        let Some(says) = self.plan.traps.get(at) else { return gone() };
        let says = literal(says);
        let says = format!("Everybody says: “{says}”. Does it hold? Say why, aloud; then choose.");
        ("What everybody says".to_owned(), vec![Say::Interviewer(says)], verdicts())
    }

    fn trap_shown(&self, subject: &Subject, at: usize) -> Parts {
        let sentence = self.plan.traps.get(at).and_then(|says| subject.sentence(says));
        let Some(sentence) = sentence else { return gone() };
        let right = self.notes.verdicts.get(&sentence.says).is_some_and(|it| it.right);
        (judged(right).to_owned(), subject.verdict_shown(sentence), Wants::Next)
    }

    fn breaks(&self, at: usize) -> Parts {
        let Some(what) = self.plan.breaks.get(at) else { return gone() };
        let what = literal(what);
        let says = format!("This fails first: {what}. How does it show, and what do you do?");
        ("What breaks".to_owned(), vec![Say::Interviewer(says)], Wants::Aloud)
    }

    fn break_shown(&self, subject: &Subject, at: usize) -> Parts {
        let what = self.plan.breaks.get(at);
        let row = subject.chapter.breaks.iter().find(|row| Some(&row.what) == what);
        let says = match row {
            Some(row) => vec![
                Say::Text(format!("**{}**", literal(&row.what))),
                Say::Text(format!("How it shows: {}", row.shows)),
                Say::Text(format!("What to do: {}", row.remedy)),
            ],
            None => vec![Say::Text(GONE.to_owned())],
        };
        ("What breaks, and what to do".to_owned(), says, recalls())
    }

    fn follow_up(&self, at: usize) -> Parts {
        let Some(question) = self.plan.follow_ups.get(at) else { return gone() };
        let heading = format!("Follow-up {} of {}", at + 1, self.plan.follow_ups.len());
        (heading, vec![Say::Interviewer(literal(question))], Wants::Aloud)
    }

    fn follow_up_shown(&self, subject: &Subject, at: usize) -> Parts {
        let question = self.plan.follow_ups.get(at);
        let all = &subject.chapter.follow_ups;
        let says = match all.iter().find(|it| Some(&it.question) == question) {
            Some(it) => {
                vec![
                    Say::Text(format!("*{}*", literal(&it.question))),
                    Say::Text(it.answer.clone()),
                ]
            }
            None => vec![Say::Text(GONE.to_owned())],
        };
        ("The answer".to_owned(), says, recalls())
    }

    fn checklist(&self, subject: &Subject, stage: Stage) -> Parts {
        let points = points(&self.plan, subject, stage);
        let mut says = Vec::new();
        if stage == Stage::Design {
            says.push(own(&self.notes.design));
            says.extend((!self.notes.later.is_empty()).then(|| Say::Own(self.notes.later.clone())));
            says.extend(subject.chapter.diagram.clone().map(Say::Diagram));
        }
        if stage == Stage::SumUp {
            says.push(own(&self.notes.sum_up));
            let short = &subject.sheet.in_45_seconds;
            if !short.is_empty() {
                says.push(Say::Text("The whole answer in 45 seconds:".to_owned()));
                says.push(Say::Text(short.clone()));
            }
            says.push(Say::Folded {
                summary: "The chapter's answer in two minutes".to_owned(),
                text: subject.chapter.spoken.clone(),
            });
        }
        says.push(Say::Text("Tick only what you really said.".to_owned()));
        let items = points.map(|Point { says, level, .. }| format!("{says} ({})", level.name()));
        (format!("Your points: {}", stage.name()), says, Wants::Ticks(items.collect()))
    }
}

impl Subject {
    /// The verdict on a sentence, what was recorded, and how to try it.
    pub fn verdict_shown(&self, sentence: &crate::chapter::Sentence) -> Vec<Say> {
        let mut says = vec![
            Say::Text(format!("“{}”", literal(&sentence.says))),
            Say::Text(sentence.reason.clone()),
        ];
        let recorded = self.recorded(sentence);
        if !recorded.is_empty() {
            let recorded = recorded.into_iter().map(|line| format!("Recorded: {line}"));
            says.push(Say::List(recorded.collect()));
        }
        let first = sentence.experiments.first().cloned();
        says.extend(first.map(|name| Say::Experiment { answer: self.name.clone(), name }));
        says
    }
}

/// Heading, words, and what is wanted.
type Parts = (String, Vec<Say>, Wants);

/// The head of a judged sentence.
pub fn judged(right: bool) -> &'static str {
    if right { "Right" } else { "Our verdict differs" }
}

/// The three verdicts, to choose from.
pub fn verdicts() -> Wants {
    Wants::Choice(Verdict::ALL.map(|verdict| verdict.words().to_owned()).to_vec())
}

fn recalls() -> Wants {
    Wants::Choice(Recall::ALL.map(|recall| recall.words().to_owned()).to_vec())
}

const GONE: &str = "This is not in the chapter any more. Go on.";

fn gone() -> Parts {
    ("Gone".to_owned(), vec![Say::Text(GONE.to_owned())], Wants::Next)
}

fn own(words: &str) -> Say {
    match words {
        "" => Say::Text("You wrote nothing, so go by what you said.".to_owned()),
        words => Say::Own(words.to_owned()),
    }
}

fn opening(subject: &Subject) -> Parts {
    let says = vec![
        Say::Interviewer(subject.chapter.question.clone()),
        Say::Text(
            "What do you ask before you answer? Write your questions, or say them aloud."
                .to_owned(),
        ),
    ];
    (subject.chapter.title.clone(), says, Wants::Text)
}

fn design(subject: &Subject) -> Parts {
    let (heading, says) = match subject.sheet.kind {
        Kind::Design => (
            "Design it",
            "Now design it. Draw on paper, speak, and write down the main parts: what is stored, what \
             a request does, and what you did not choose.",
        ),
        Kind::Concept => (
            "Explain it",
            "Now explain it. Speak for some minutes, and write down the main points.",
        ),
    };
    (heading.to_owned(), vec![Say::Interviewer(says.to_owned())], Wants::Text)
}

fn sum_up(subject: &Subject) -> Parts {
    let says = match subject.sheet.kind {
        Kind::Design => {
            "Sum up: what did you decide, what does it cost, and what would you do next?"
        }
        Kind::Concept => "Sum up: give me your whole answer once more, in 45 seconds.",
    };
    ("Sum up".to_owned(), vec![Say::Interviewer(says.to_owned())], Wants::Text)
}

fn flags(subject: &Subject) -> Parts {
    let items = subject.sheet.red_flags.iter().map(|flag| flag.says.clone()).collect();
    let says = "Did you say one of these? Be honest: each of them ends real interviews.";
    ("Red flags".to_owned(), vec![Say::Text(says.to_owned())], Wants::Ticks(items))
}

fn habits() -> Parts {
    let says = "How did you speak? Tick what was true all the time.";
    let items = HABITS.map(str::to_owned).to_vec();
    ("How you spoke".to_owned(), vec![Say::Text(says.to_owned())], Wants::Ticks(items))
}

/// `clarify, 4:07 left`, or nothing while the reader looks back.
pub fn clock_in_words(
    session: &Session,
    subject: &Subject,
    now: time::OffsetDateTime,
) -> Option<String> {
    let step = session.step();
    let stage = step.stage().filter(|_| step.is_timed())?;
    let minutes = subject.sheet.kind.minutes(stage);
    let left = crate::clock::left(session.clock.used(stage, now), minutes);
    let paused = if session.clock.is_paused() { ", paused" } else { "" };
    Some(format!("{}, {left} left of {minutes}:00{paused}", stage.name()))
}

/// What the interviewer says when the time of a stage is over; nothing before.
pub fn nudge(
    session: &Session,
    subject: &Subject,
    now: time::OffsetDateTime,
) -> Option<(Stage, String)> {
    let step = session.step();
    let stage = step.stage().filter(|_| step.is_timed())?;
    let minutes = subject.sheet.kind.minutes(stage);
    let is_over = session.clock.used(stage, now).as_secs() >= 60 * minutes;
    let words = format!(
        "{minutes} minutes for “{}” are over. Finish your sentence, and go on.",
        stage.name()
    );
    is_over.then_some((stage, words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::{
            Input,
            tests::{at, plan},
        },
        step::Plan,
        subject::small,
    };

    /// The screens of an interview in which the reader asked the first question only, by step.
    fn screens() -> Vec<(Step, String)> {
        screens_of(&small(), plan())
    }

    fn screens_of(subject: &Subject, plan: Plan) -> Vec<(Step, String)> {
        let mut session = Session::begin(subject, plan, at(0));
        let mut screens = Vec::new();
        loop {
            let step = session.step();
            let screen = session.screen(subject);
            let input = match (&screen.wants, step) {
                (_, Step::Asked) => Input::Ticks([0].into()),
                (Wants::Choice(_), _) => Input::Choice(0),
                (Wants::Number, _) => Input::Text("2 million".to_owned()),
                (Wants::Text, _) => Input::Text("my own words".to_owned()),
                _ => Input::Next,
            };
            screens.push((step, format!("{screen:?}")));
            if step == Step::Result {
                return screens;
            }
            session.take(subject, &input, at(1)).unwrap();
        }
    }

    fn shown(step: Step) -> String {
        shown_of(screens(), step)
    }

    fn shown_of(screens: Vec<(Step, String)>, step: Step) -> String {
        screens.into_iter().find(|(it, _)| *it == step).unwrap().1
    }

    #[test]
    fn the_second_question_is_shown_after_the_first_was_answered() {
        let plan = Plan { later: "Now there are fractions.".to_owned(), ..plan() };
        let screens = screens_of(&small(), plan);
        let (step, shown) = screens.iter().find(|it| it.1.contains("Now there are")).unwrap();
        assert_eq!(*step, Step::Later, "{shown}");
    }

    #[test]
    fn a_checklist_lists_the_points_of_what_was_asked() {
        let mut subject = small();
        let step = Step::Checklist(Stage::FollowUps);
        let lists = |subject: &Subject| {
            shown_of(screens_of(subject, plan()), step).contains("Sums the parts in parallel.")
        };
        assert!(lists(&subject));
        let point = subject.sheet.points.iter_mut().find(|it| it.stage == Stage::FollowUps);
        point.unwrap().follow_up = Some("And in parallel?".to_owned());
        assert!(!lists(&subject), "it was not drawn");
    }

    #[test]
    fn the_chapters_own_answer_comes_after_the_sum_up_and_is_folded() {
        let all = screens();
        let spoken = "I add them, and I check for an overflow.";
        let (step, shown) = all.iter().find(|it| it.1.contains(spoken)).unwrap();
        assert_eq!(*step, Step::Checklist(Stage::SumUp));
        assert!(shown.contains("Folded {"), "{shown}");
    }

    #[test]
    fn a_concept_is_summed_up_in_45_seconds() {
        let mut subject = small();
        assert!(shown(Step::SumUp).contains("what did you decide"));
        subject.sheet.kind = Kind::Concept;
        let sum_up = shown_of(screens_of(&subject, plan()), Step::SumUp);
        assert!(sum_up.contains("in 45 seconds") && !sum_up.contains("decide"), "{sum_up}");
    }

    #[test]
    fn a_unit_does_not_read_as_a_time() {
        let mut subject = small();
        subject.sheet.estimates[0].says = "116 a second".to_owned();
        let estimate = shown_of(screens_of(&subject, plan()), Step::Estimate(0));
        assert!(estimate.contains("Say it as: … a second."), "{estimate}");
    }

    #[test]
    fn what_should_have_been_asked_is_said_piece_by_piece() {
        let missed = shown(Step::Missed);
        for piece in [
            "Text(\"**How many are there?**\")",
            "Text(\"Then you know whether one machine will do.\")",
            "Interviewer(\"Ten sums a second.\")",
        ] {
            assert!(missed.contains(piece), "no {piece} in {missed}");
        }
    }

    #[test]
    fn the_interviewer_opens_in_the_words_of_the_question_and_gives_nothing_away() {
        let opening = shown(Step::Ask);
        assert!(opening.contains("Add two numbers"), "{opening}");
        assert!(!opening.contains("How large") && !opening.contains("billion"), "{opening}");
    }

    #[test]
    fn only_what_was_asked_is_answered_and_the_rest_comes_afterwards() {
        let (answers, missed) = (shown(Step::Answers), shown(Step::Missed));
        assert!(answers.contains("Up to a billion each."), "{answers}");
        assert!(!answers.contains("Ten sums a second."), "{answers}");
        assert!(missed.contains("Ten sums a second.") && missed.contains("one machine will do"));
        assert!(!missed.contains("billion"), "{missed}");
    }

    #[test]
    fn the_formula_is_shown_after_the_estimate_only() {
        let (before, after) = (shown(Step::Estimate(0)), shown(Step::Estimated(0)));
        assert!(before.contains("sums per second: 10") && !before.contains("86400"), "{before}");
        assert!(after.contains("Off by a factor of 2.31") && after.contains("86400"), "{after}");
    }

    #[test]
    fn what_the_reader_wrote_is_not_read_as_markdown() {
        let subject = small();
        let mut session = Session::begin(&subject, plan(), at(0));
        while !matches!(session.step(), Step::Estimated(_)) {
            let input = match session.step() {
                Step::Estimate(_) => Input::Text("10*86400*1".to_owned()),
                _ => Input::Next,
            };
            session.take(&subject, &input, at(1)).unwrap();
        }
        let screen = session.screen(&subject);
        assert_eq!(screen.says[0], Say::Own("10*86400*1".to_owned()));
        assert_eq!(screen.says[1], Say::Text("**Right.**".to_owned()));
    }

    #[test]
    fn the_diagram_stands_beside_the_readers_own_words() {
        let checklist = shown(Step::Checklist(Stage::Design));
        assert!(checklist.contains("my own words") && checklist.contains("one --> sum"));
        assert!(!shown(Step::Design).contains("one --> sum"));
    }

    #[test]
    fn a_verdict_comes_with_what_was_recorded_and_the_command() {
        let (before, after) = (shown(Step::Trap(0)), shown(Step::TrapShown(0)));
        assert!(!before.contains("did not"), "{before}");
        for words in
            ["Our verdict differs", "3 of 4", "Experiment { answer: \"sums\", name: \"overflow\" }"]
        {
            assert!(after.contains(words), "no {words}: {after}");
        }
    }

    #[test]
    fn what_breaks_and_the_follow_ups_open_only_after_the_reader_has_spoken() {
        assert!(!shown(Step::Break(0)).contains("Parse it"));
        assert!(shown(Step::BreakShown(0)).contains("Parse it"));
        assert!(!shown(Step::FollowUp(0)).contains("not exact"));
        assert!(shown(Step::FollowUpShown(0)).contains("not exact"));
    }

    #[test]
    fn a_stage_ends_with_a_nudge_and_goes_on() {
        let subject = small();
        let mut session = Session::begin(&subject, plan(), at(0));
        assert_eq!(nudge(&session, &subject, at(299)), None);
        let (stage, words) = nudge(&session, &subject, at(300)).unwrap();
        assert_eq!(stage, Stage::Clarify);
        assert!(words.contains("5 minutes"), "{words}");
        let clock = clock_in_words(&session, &subject, at(310)).unwrap();
        assert_eq!(clock, "clarify, -0:10 left of 5:00");
        session.take(&subject, &Input::Next, at(310)).unwrap();
        assert_eq!(nudge(&session, &subject, at(9_999)), None, "the clock is stopped meanwhile");
    }
}
