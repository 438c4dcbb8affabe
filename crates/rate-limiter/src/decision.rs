//! What does a limiter say of a request?

use crate::quota::{MAX_POLICIES, Micros};

/// What one policy says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Units that could be taken now, after this request.
    pub remaining: u64,
    /// How long until this request would pass: zero if it did.
    pub wait: Micros,
    /// How long until the whole quota is there again, if nothing more is taken.
    pub whole: Micros,
}

/// What all policies say together. It holds no heap memory: it is made for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may pass: every policy had room for it.
    pub allowed: bool,
    outcomes: [Outcome; MAX_POLICIES],
    policies: usize,
}

impl Decision {
    /// A decision by no policy yet.
    pub fn new(allowed: bool) -> Self {
        Self { allowed, outcomes: Default::default(), policies: 0 }
    }

    /// Adds what the next policy says; more than [`MAX_POLICIES`] are left out, and cannot be configured.
    pub fn push(&mut self, outcome: Outcome) {
        if let Some(place) = self.outcomes.get_mut(self.policies) {
            *place = outcome;
            self.policies += 1;
        }
    }

    /// In the order of the policies.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes[..self.policies]
    }

    /// How long until the request would pass every policy.
    pub fn wait(&self) -> Micros {
        self.outcomes().iter().map(|outcome| outcome.wait).max().unwrap_or(0)
    }
}
