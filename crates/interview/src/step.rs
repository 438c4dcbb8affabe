//! In which order does an interview go? A list of steps, made once from the question and from what is picked for today.

use serde::{Deserialize, Serialize};

use crate::sheet::{Kind, Point, Stage};

/// One step: something is shown, and the reader answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The interviewer opens. The reader writes what they would ask.
    Ask,
    /// Which of the chapter's questions the reader asked.
    Asked,
    /// The answers to what was asked.
    Answers,
    /// What should have been asked as well.
    Missed,
    /// The reader estimates.
    Estimate(usize),
    /// The formula.
    Estimated(usize),
    /// The reader designs, or explains.
    Design,
    /// The interviewer asks the second question of those that open the chapter.
    Later,
    /// A sentence that everybody repeats, to be judged.
    Trap(usize),
    /// The verdict on it.
    TrapShown(usize),
    /// Something that breaks first. The reader says how it shows and what to do.
    Break(usize),
    /// What the chapter says about it.
    BreakShown(usize),
    /// A follow-up question.
    FollowUp(usize),
    /// Its answer.
    FollowUpShown(usize),
    /// The reader sums up.
    SumUp,
    /// Which points of a stage the reader made.
    Checklist(Stage),
    /// Which red flags the reader has shown.
    Flags,
    /// How the reader has spoken.
    Habits,
    /// The result.
    Result,
}

/// What is picked for this interview, by its words: the chapter and `interview.toml` may change until tomorrow, and the
/// reader still goes on at the same step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What is estimated.
    pub estimates: Vec<String>,
    /// The stages that end with a checklist.
    pub checklists: Vec<Stage>,
    /// What the interviewer asks after the design or the explanation; empty if nothing.
    #[serde(default)]
    pub later: String,
    /// Sentences to be judged.
    pub traps: Vec<String>,
    /// What breaks.
    pub breaks: Vec<String>,
    /// Follow-ups.
    pub follow_ups: Vec<String>,
}

impl Plan {
    /// Whether this point can be made in this interview: the follow-up that it answers is asked.
    pub fn asks_for(&self, point: &Point) -> bool {
        point.follow_up.as_ref().is_none_or(|question| self.follow_ups.contains(question))
    }

    /// How many sentences, breaks and follow-ups fit into the time.
    pub fn sizes(kind: Kind) -> (usize, usize, usize) {
        match kind {
            Kind::Design => (3, 2, 3),
            Kind::Concept => (2, 1, 2),
        }
    }
}

impl Step {
    /// All steps of this interview.
    pub fn all(plan: &Plan) -> Vec<Self> {
        let checklist = |stage| plan.checklists.contains(&stage).then_some(Self::Checklist(stage));
        let mut steps = vec![Self::Ask, Self::Asked, Self::Answers, Self::Missed];
        steps.extend(checklist(Stage::Clarify));
        for at in 0..plan.estimates.len() {
            steps.extend([Self::Estimate(at), Self::Estimated(at)]);
        }
        steps.extend(checklist(Stage::Estimate));
        steps.push(Self::Design);
        // Before the checklist: its points answer both questions.
        steps.extend((!plan.later.is_empty()).then_some(Self::Later));
        steps.extend(checklist(Stage::Design));
        for at in 0..plan.traps.len() {
            steps.extend([Self::Trap(at), Self::TrapShown(at)]);
        }
        for at in 0..plan.breaks.len() {
            steps.extend([Self::Break(at), Self::BreakShown(at)]);
        }
        steps.extend(checklist(Stage::DeepDive));
        for at in 0..plan.follow_ups.len() {
            steps.extend([Self::FollowUp(at), Self::FollowUpShown(at)]);
        }
        steps.extend(checklist(Stage::FollowUps));
        steps.push(Self::SumUp);
        steps.extend(checklist(Stage::SumUp));
        steps.extend([Self::Flags, Self::Habits, Self::Result]);
        steps
    }

    /// The stage that it belongs to; none when the interview is over.
    pub fn stage(self) -> Option<Stage> {
        match self {
            Self::Ask | Self::Asked | Self::Answers | Self::Missed => Some(Stage::Clarify),
            Self::Estimate(_) | Self::Estimated(_) => Some(Stage::Estimate),
            Self::Design | Self::Later => Some(Stage::Design),
            Self::Trap(_) | Self::TrapShown(_) | Self::Break(_) | Self::BreakShown(_) => {
                Some(Stage::DeepDive)
            }
            Self::FollowUp(_) | Self::FollowUpShown(_) => Some(Stage::FollowUps),
            Self::SumUp => Some(Stage::SumUp),
            Self::Checklist(stage) => Some(stage),
            Self::Flags | Self::Habits | Self::Result => None,
        }
    }

    /// Whether the clock runs: only while the reader answers the interviewer, and not while they look back.
    pub fn is_timed(self) -> bool {
        matches!(
            self,
            Self::Ask
                | Self::Estimate(_)
                | Self::Design
                | Self::Later
                | Self::Trap(_)
                | Self::Break(_)
                | Self::FollowUp(_)
                | Self::SumUp
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_go_through_the_stages_in_their_order_and_end_with_the_result() {
        let plan = Plan {
            estimates: vec![String::new()],
            checklists: Stage::ALL.to_vec(),
            later: "And then?".to_owned(),
            traps: vec![String::new(); 2],
            breaks: vec![String::new()],
            follow_ups: vec![String::new()],
        };
        let steps = Step::all(&plan);
        let stages: Vec<_> = steps.iter().filter_map(|step| step.stage()).collect();
        assert!(stages.is_sorted(), "{stages:?}");
        assert!(Stage::ALL.iter().all(|stage| stages.contains(stage)));
        assert_eq!(steps.last(), Some(&Step::Result));
        let shown = |step: &&Step| matches!(step, Step::TrapShown(_) | Step::Estimated(_));
        assert_eq!(steps.iter().filter(shown).count(), 3);
        let design = steps.iter().position(|step| *step == Step::Design).unwrap();
        assert_eq!(steps[design + 1..][..2], [Step::Later, Step::Checklist(Stage::Design)]);
    }
}
