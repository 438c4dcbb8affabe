//! What has happened, and what is to be done next? Both follow from the log, and from nothing else.
//!
//! Invariant: after the pivot is done the saga only goes forward; before it, what was *or may have been* done is
//! undone in reverse, and the saga ends only when nothing is left to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::saga::{Call, Kind, Record, STEPS};

/// How an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// On its way forward.
    Pending,
    /// Ended: every action is done.
    Confirmed,
    /// On its way back.
    Cancelling,
    /// Ended: nothing of it is left.
    Cancelled,
    /// Waits for somebody to mend what is broken.
    Stuck,
}

impl Status {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Stuck => "stuck",
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make this call; if it has not been asked for yet, write so first.
    Ask(Call),
    /// Write this, and see what follows.
    Write(Record),
    /// Nothing: it has ended, or is parked.
    Rest,
}

/// What the log says of one call.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// When it was first asked for; after somebody mended the cause, when it was resumed.
    since: Option<OffsetDateTime>,
    /// Whether an attempt may have been carried out without our hearing of it.
    maybe: bool,
    /// Attempts that failed since then: the next pause follows from it.
    pub failures: u32,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// Attempts in all.
    pub attempts: u32,
    /// Why the last one was no success.
    pub last_error: Option<String>,
    /// When the log last spoke of it.
    pub at: Option<OffsetDateTime>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Refused for good.
    Refused,
    /// Neither, by the deadline.
    GaveUp,
}

/// A saga's log, read record by record.
#[derive(Clone, Debug, Default)]
pub struct Log {
    calls: [Progress; Call::ALL.len()],
    /// Calls in the order in which they were first asked for.
    pub asked: Vec<Call>,
    /// Why a human is needed, if one is.
    pub parked: Option<String>,
    ended: Option<Status>,
    /// Why the log cannot be understood, if so: nothing is done on the strength of such a log.
    pub damage: Option<String>,
    /// Records read.
    pub length: usize,
}

impl Log {
    /// The log of a new order: the first decision needs no thought, so it is written with the order.
    pub fn new(at: OffsetDateTime) -> Self {
        let mut log = Self::default();
        log.push(&Self::FIRST, at);
        log
    }

    /// The first record of every log.
    pub const FIRST: Record = Record::Asked { call: STEPS[0].action };

    /// Reads a log as it is stored.
    pub fn read(records: impl IntoIterator<Item = (Value, OffsetDateTime)>) -> Self {
        let mut log = Self::default();
        for (value, at) in records {
            match serde_json::from_value(value) {
                Ok(record) => log.push(&record, at),
                Err(error) => {
                    log.length += 1;
                    log.damaged(&error.to_string());
                }
            }
        }
        log
    }

    // ANCHOR: push
    /// Reads one more record. One that cannot follow on those before it was written by no code of ours.
    pub fn push(&mut self, record: &Record, at: OffsetDateTime) {
        self.length += 1;
        if self.ended.is_some() {
            return self.damaged("it comes after the end");
        }
        match record {
            Record::Asked { call } if self.of(*call).since.is_none() => {
                self.asked.push(*call);
                self.progress(*call).since = Some(at);
                self.progress(*call).at = Some(at);
            }
            Record::Done { call } if self.is_open(*call) => self.settle(*call, Outcome::Done, at),
            Record::Refused { call, reason } if self.is_open(*call) => {
                self.settle(*call, Outcome::Refused, at);
                self.progress(*call).last_error = Some(reason.clone());
            }
            Record::Failed { call, unknown, reason } if self.is_open(*call) => {
                let progress = self.progress(*call);
                progress.maybe |= unknown;
                progress.attempts += 1;
                progress.failures += 1;
                progress.last_error = Some(reason.clone());
                progress.at = Some(at);
            }
            Record::GaveUp { call } if self.is_open(*call) => {
                self.progress(*call).outcome = Some(Outcome::GaveUp);
                self.progress(*call).at = Some(at);
            }
            Record::TakenOver => {
                if let Some(progress) = self.last_call() {
                    progress.maybe = true;
                }
            }
            Record::Parked { reason } if self.parked.is_none() => {
                self.parked = Some(reason.clone());
            }
            Record::Resumed if self.parked.is_some() => {
                self.parked = None;
                if let Some(progress) = self.last_call() {
                    (progress.since, progress.failures, progress.outcome) = (Some(at), 0, None);
                }
            }
            Record::Confirmed => self.ended = Some(Status::Confirmed),
            Record::Cancelled => self.ended = Some(Status::Cancelled),
            _ => self.damaged("it cannot follow on those before it"),
        }
    }
    // ANCHOR_END: push

    // ANCHOR: next
    /// What to do next. `deadline` is for a call, from when it was first asked for.
    pub fn next(&self, now: OffsetDateTime, deadline: Duration) -> Next {
        if self.ended.is_some() || self.parked.is_some() {
            return Next::Rest;
        }
        if let Some(damage) = &self.damage {
            return Next::Write(Record::Parked { reason: damage.clone() });
        }
        let late = |call| self.of(call).is_late(now, deadline);
        if self.compensates() {
            for step in STEPS.iter().rev().filter(|step| self.may_have_been_done(step.action)) {
                let Some(undo) = step.compensation else { continue };
                match self.of(undo).outcome {
                    Some(Outcome::Done) => {}
                    Some(_) => return self.park(undo),
                    None if late(undo) => return self.park(undo),
                    None => return Next::Ask(undo),
                }
            }
            return Next::Write(Record::Cancelled);
        }
        for step in STEPS {
            let call = step.action;
            match self.of(call).outcome {
                Some(Outcome::Done) => {}
                // Before the pivot this would compensate; after it there is no way but forward.
                Some(_) => return self.park(call),
                None if late(call) && step.kind == Kind::Retriable => return self.park(call),
                None if late(call) => return Next::Write(Record::GaveUp { call }),
                None => return Next::Ask(call),
            }
        }
        Next::Write(Record::Confirmed)
    }

    /// Whether it goes backwards: an action up to the pivot was refused, or given up.
    fn compensates(&self) -> bool {
        STEPS.iter().filter(|step| step.kind != Kind::Retriable).any(|step| {
            matches!(self.of(step.action).outcome, Some(Outcome::Refused | Outcome::GaveUp))
        })
    }

    /// A refusal is final only for who heard every answer: what came before it may have been lost.
    fn may_have_been_done(&self, call: Call) -> bool {
        let progress = self.of(call);
        match progress.outcome {
            Some(Outcome::Done) => true,
            Some(Outcome::Refused | Outcome::GaveUp) => progress.maybe,
            None => false,
        }
    }
    // ANCHOR_END: next

    fn park(&self, call: Call) -> Next {
        let error = self.of(call).last_error.as_deref().unwrap_or("no answer");
        Next::Write(Record::Parked { reason: format!("{call}: {error}") })
    }

    /// How the order stands.
    pub fn status(&self) -> Status {
        match self.ended {
            Some(status) => status,
            None if self.parked.is_some() => Status::Stuck,
            None if self.compensates() => Status::Cancelling,
            None => Status::Pending,
        }
    }

    /// What is known of a call.
    pub fn of(&self, call: Call) -> &Progress {
        &self.calls[call as usize]
    }

    /// Whether it was asked for.
    pub fn was_asked(&self, call: Call) -> bool {
        self.of(call).since.is_some()
    }

    fn progress(&mut self, call: Call) -> &mut Progress {
        &mut self.calls[call as usize]
    }

    fn is_open(&self, call: Call) -> bool {
        self.was_asked(call) && self.of(call).outcome.is_none()
    }

    /// The one asked for last, unless it is done. What was refused on the way back, or after the pivot, is asked
    /// for again when somebody has mended the cause.
    fn last_call(&mut self) -> Option<&mut Progress> {
        let last = *self.asked.last()?;
        Some(self.progress(last)).filter(|progress| progress.outcome != Some(Outcome::Done))
    }

    fn settle(&mut self, call: Call, outcome: Outcome, at: OffsetDateTime) {
        let progress = self.progress(call);
        progress.outcome = Some(outcome);
        progress.attempts += 1;
        progress.at = Some(at);
    }

    fn damaged(&mut self, why: &str) {
        let number = self.length;
        self.damage.get_or_insert_with(|| format!("record {number} of the log: {why}"));
    }
}

impl Progress {
    fn is_late(&self, now: OffsetDateTime, deadline: Duration) -> bool {
        self.failures > 0 && self.since.is_some_and(|since| now - since >= deadline)
    }
}
