//! Of which steps does the saga consist, and what is written down about them?
//!
//! The saga is data: a list of steps, and a log of records. What to do next follows from both, in
//! [`next`](crate::next).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A call that changes something at a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Inventory: reserves the items for this order.
    Reserve,
    /// Inventory: makes them available again.
    Release,
    /// Payment: takes the money.
    Charge,
    /// Payment: gives it back.
    Refund,
    /// Shipping: books a parcel.
    Book,
    /// Shipping: cancels it.
    Cancel,
    /// Inventory: the reserved items are sold.
    Sell,
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Participant {
    /// Has the stock.
    Inventory,
    /// Moves the money.
    Payment,
    /// Sends the parcel.
    Shipping,
}

// ANCHOR: steps
/// What a step is to the saga (the terms are from Mehrotra et al., 1992).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Can be undone by its compensation.
    Compensatable,
    /// Decides: once it is done, the saga only goes forward. Its compensation is for when nobody knows
    /// whether it was done.
    Pivot,
    /// Comes after the pivot. No business rule can refuse it, so the saga asks until it is done.
    Retriable,
}

/// An action, and how it is undone.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What is asked for on the way forward.
    pub action: Call,
    /// What is asked for on the way back.
    pub compensation: Option<Call>,
    /// What the step is to the saga.
    pub kind: Kind,
}

/// The order, as a saga. The step that is most often refused, and cheapest to undo, comes first.
pub const STEPS: [Step; 4] = [
    Step { action: Call::Reserve, compensation: Some(Call::Release), kind: Kind::Compensatable },
    Step { action: Call::Charge, compensation: Some(Call::Refund), kind: Kind::Compensatable },
    Step { action: Call::Book, compensation: Some(Call::Cancel), kind: Kind::Pivot },
    Step { action: Call::Sell, compensation: None, kind: Kind::Retriable },
];
// ANCHOR_END: steps

// ANCHOR: record
/// A record of the log: a decision, written before it is acted on, or the result of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields say what they are: which call, and why")]
pub enum Record {
    /// The call is about to be made, as often as it takes.
    Asked { call: Call },
    /// The participant did it.
    Done { call: Call },
    /// The participant refused it, and will refuse it for ever.
    Refused { call: Call, reason: String },
    /// An attempt had no result. `outcome_unknown`: it may have been done all the same.
    Failed { call: Call, outcome_unknown: bool, reason: String },
    /// So many attempts have failed that the saga turns round.
    GaveUp { call: Call },
    /// The orchestrator before this one let its lease run out. Its last call may have been done.
    TakenOver,
    /// A human is needed.
    Parked { reason: String },
    /// A human has mended the cause.
    Resumed,
    /// The end: every action is done.
    Confirmed,
    /// The end: every action that was or may have been done is undone.
    Cancelled,
}
// ANCHOR_END: record

impl Call {
    /// Who is called.
    pub fn participant(self) -> Participant {
        match self {
            Self::Reserve | Self::Release | Self::Sell => Participant::Inventory,
            Self::Charge | Self::Refund => Participant::Payment,
            Self::Book | Self::Cancel => Participant::Shipping,
        }
    }

    /// The step whose action it is, if it is one and no compensation.
    pub fn step(self) -> Option<Step> {
        STEPS.into_iter().find(|step| step.action == self)
    }
}

/// Its name in paths, keys and answers.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Participant {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Inventory, Self::Payment, Self::Shipping];
}

/// Its name in paths and options.
impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
