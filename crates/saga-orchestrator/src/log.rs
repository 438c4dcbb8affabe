//! What has happened? The log says it, record by record.
//!
//! Invariant: what cannot follow on the records before it marks the log as damaged, and it stays so.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::saga::{Call, Record, STEPS};

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

/// What the log says of one call.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// When it was first asked for; after somebody mended the cause, when it was resumed.
    pub since: Option<OffsetDateTime>,
    /// Whether an attempt may have been carried out without our hearing of it.
    pub maybe: bool,
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
    /// How it ended, if it has.
    pub ended: Option<Status>,
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
            // An end that nothing led to would lose an order, or the money for it.
            Record::Confirmed if STEPS.iter().all(|step| self.is_done(step.action)) => {
                self.ended = Some(Status::Confirmed);
            }
            Record::Cancelled if self.compensates() => self.ended = Some(Status::Cancelled),
            _ => self.damaged("it cannot follow on those before it"),
        }
    }
    // ANCHOR_END: push

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

    fn is_done(&self, call: Call) -> bool {
        self.of(call).outcome == Some(Outcome::Done)
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
