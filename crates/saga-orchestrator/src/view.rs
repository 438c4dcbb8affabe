//! What does a client see of an order? Its steps, as the log tells them.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    log::{Log, Outcome, Status},
    saga::{Call, STEPS},
};

/// An order, as clients see it.
#[derive(Debug, Serialize)]
pub struct OrderBody {
    id: Uuid,
    status: Status,
    /// Why it is stuck, or why it was cancelled.
    reason: Option<String>,
    steps: Vec<StepBody>,
}

#[derive(Debug, Serialize)]
struct StepBody {
    name: Call,
    status: &'static str,
    /// Attempts that have come to an end.
    attempts: u32,
    last_error: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    at: Option<OffsetDateTime>,
}

impl OrderBody {
    /// The actions in their order, and the compensations in that in which they were asked for.
    pub fn new(id: Uuid, status: Status, log: &Log) -> Self {
        let actions = STEPS.iter().map(|step| step.action);
        let compensations = log.asked.iter().copied().filter(|call| call.step().is_none());
        let steps = actions.chain(compensations).map(|call| StepBody {
            name: call,
            status: status_of(call, status, log),
            attempts: log.of(call).attempts,
            last_error: log.of(call).last_error.clone(),
            at: log.of(call).at,
        });
        let refused = STEPS
            .iter()
            .map(|step| log.of(step.action))
            .find(|progress| matches!(progress.outcome, Some(Outcome::Refused | Outcome::GaveUp)));
        let reason = log.parked.clone().or(refused.and_then(|it| it.last_error.clone()));
        Self { id, status, reason, steps: steps.collect() }
    }
}

fn status_of(call: Call, status: Status, log: &Log) -> &'static str {
    let undo = call.step().and_then(|step| step.compensation);
    if undo.is_some_and(|undo| log.of(undo).outcome == Some(Outcome::Done)) {
        return "compensated";
    }
    match log.of(call).outcome {
        Some(Outcome::Done) => "done",
        Some(Outcome::Refused) => "refused",
        Some(Outcome::GaveUp) => "given_up",
        None if log.parked.is_some() && log.asked.last() == Some(&call) => "stuck",
        None if log.was_asked(call) => "running",
        None if matches!(status, Status::Cancelling | Status::Cancelled) => "skipped",
        None => "pending",
    }
}
