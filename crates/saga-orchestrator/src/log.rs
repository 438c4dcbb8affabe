//! What has happened? The log says it, record by record.
//!
//! Invariant: a record that cannot follow those before it marks the log as damaged for good.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::saga::{Call, Kind, Record, STEPS, Step};

/// The state of an order.
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
    /// Waits for a human to mend the cause.
    Stuck,
}

/// As it is stored and shown.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What the log says of one call.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
    /// Whether an attempt may have been carried out without our hearing of it.
    pub outcome_unknown: bool,
    /// Failed attempts since it was first asked for, or since a human resumed it. A take-over is none: the lease may only
    /// have been too short.
    pub failures: u32,
    /// Attempts in all.
    pub attempts: u32,
    /// Why the last one was no success.
    pub last_error: Option<String>,
    /// When the log last spoke of it, which clients are shown. Nothing is decided by it.
    pub at: Option<OffsetDateTime>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Done,
    /// Refused for good.
    Refused,
    /// Neither, after too many attempts.
    #[serde(rename = "given_up")]
    GaveUp,
}

/// A saga's log, read record by record.
#[derive(Clone, Debug, Default)]
pub struct Log {
    calls: [Progress; Call::Sell as usize + 1],
    /// Calls in the order in which they were first asked for.
    pub asked: Vec<Call>,
    /// Why a human is needed, if one is.
    pub parked: Option<String>,
    /// How it ended, if it has.
    pub ended: Option<Status>,
    /// Why the log cannot be understood, if it cannot: then nothing is done on the strength of it.
    pub damage: Option<String>,
    length: usize,
}

impl Log {
    /// The first record of every log. This decision needs no thought, so it is written with the order.
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
    /// Reads one more record. One that cannot follow those before it was not written by this program.
    pub fn push(&mut self, record: &Record, at: OffsetDateTime) {
        self.length += 1;
        if self.ended.is_some() {
            return self.damaged("it comes after the end");
        }
        let was_done = |call| self.of(call).outcome == Some(Outcome::Done);
        let is_done = |step: &Step| was_done(step.action);
        let is_undone = |step: &Step| {
            !self.may_have_been_done(step.action) || step.compensation.is_none_or(was_done)
        };
        match record {
            Record::Asked { call } if !self.asked.contains(call) => {
                self.asked.push(*call);
                self.heard_of(*call, at);
            }
            Record::Done { call } if self.is_open(*call) => {
                let progress = self.heard_of(*call, at);
                progress.attempts += 1;
                progress.outcome = Some(Outcome::Done);
            }
            Record::Refused { call, reason } if self.is_open(*call) => {
                let progress = self.heard_of(*call, at);
                progress.attempts += 1;
                progress.outcome = Some(Outcome::Refused);
                progress.last_error = Some(reason.clone());
            }
            Record::Failed { call, outcome_unknown, reason } if self.is_open(*call) => {
                let progress = self.heard_of(*call, at);
                progress.attempts += 1;
                progress.failures += 1;
                progress.outcome_unknown |= outcome_unknown;
                progress.last_error = Some(reason.clone());
            }
            Record::GaveUp { call } if self.is_open(*call) => {
                self.heard_of(*call, at).outcome = Some(Outcome::GaveUp);
            }
            Record::TakenOver => {
                if let Some(progress) = self.unfinished() {
                    progress.outcome_unknown = true;
                }
            }
            Record::Parked { reason } if self.parked.is_none() => {
                self.parked = Some(reason.clone());
            }
            Record::Resumed if self.parked.is_some() => {
                self.parked = None;
                if let Some(progress) = self.unfinished() {
                    (progress.failures, progress.outcome) = (0, None);
                }
            }
            // An end that nothing led to would lose an order, or the money for it.
            Record::Confirmed if STEPS.iter().all(is_done) => {
                self.ended = Some(Status::Confirmed);
            }
            Record::Cancelled if self.compensates() && STEPS.iter().all(is_undone) => {
                self.ended = Some(Status::Cancelled);
            }
            _ => self.damaged("it cannot follow those before it"),
        }
    }
    // ANCHOR_END: push

    /// The state of the order.
    pub fn status(&self) -> Status {
        match self.ended {
            Some(status) => status,
            None if self.parked.is_some() => Status::Stuck,
            None if self.compensates() => Status::Cancelling,
            None => Status::Pending,
        }
    }

    /// Whether it goes backwards: an action up to the pivot was refused, or given up.
    pub fn compensates(&self) -> bool {
        STEPS.iter().filter(|step| step.kind != Kind::Retriable).any(|step| {
            matches!(self.of(step.action).outcome, Some(Outcome::Refused | Outcome::GaveUp))
        })
    }

    /// What is known of a call.
    pub fn of(&self, call: Call) -> &Progress {
        &self.calls[call as usize]
    }

    /// The log cannot be understood from here on.
    pub fn damaged(&mut self, why: &str) {
        let number = self.length;
        self.damage.get_or_insert_with(|| format!("record {number} of the log: {why}"));
    }

    fn heard_of(&mut self, call: Call, at: OffsetDateTime) -> &mut Progress {
        let progress = &mut self.calls[call as usize];
        progress.at = Some(at);
        progress
    }

    fn is_open(&self, call: Call) -> bool {
        self.asked.contains(&call) && self.of(call).outcome.is_none()
    }

    /// The call that was asked for last, unless it is done. A refusal on the way back, or after the pivot, is also
    /// unfinished: the call is made again when a human has mended the cause.
    fn unfinished(&mut self) -> Option<&mut Progress> {
        let last = *self.asked.last()?;
        let progress = &mut self.calls[last as usize];
        (progress.outcome != Some(Outcome::Done)).then_some(progress)
    }
}
