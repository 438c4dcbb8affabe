//! What must every algorithm be able to say? Five of them, behind one trait.
//!
//! An algorithm is what it remembers of a client, and what it makes of that. The same five functions are written twice,
//! side by side: in Rust for one process, and in Lua for all processes that share a Redis. A test replays in memory
//! what Redis decided, and finds the two equal to the microsecond.

use clap::ValueEnum;

use crate::quota::{InvalidQuota, LONGEST_LOG, MAX_POLICIES, Micros, Policy, Quota};

/// The five algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Algorithm {
    /// A counter that starts again when its window is over
    FixedWindow,
    /// The time of every request
    SlidingLog,
    /// Two counters, the older one fading out
    SlidingWindow,
    /// A bucket that fills up at a steady rate
    TokenBucket,
    /// One timestamp: when the next request is due
    Gcra,
}

impl Algorithm {
    /// All of them, in the order of the chapter.
    pub const ALL: [Self; 5] =
        [Self::FixedWindow, Self::SlidingLog, Self::SlidingWindow, Self::TokenBucket, Self::Gcra];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixedWindow => "fixed-window",
            Self::SlidingLog => "sliding-log",
            Self::SlidingWindow => "sliding-window",
            Self::TokenBucket => "token-bucket",
            Self::Gcra => "gcra",
        }
    }

    /// The most units that can pass in *any* span of time of this length, wherever it begins.
    ///
    /// This is what an algorithm promises; `boundary-burst` and the property tests hold each to it.
    pub fn bound(self, quota: &Quota, span: Micros) -> u64 {
        let (limit, window) = (u128::from(quota.limit()), u128::from(quota.window()));
        let span = u128::from(span);
        let bound = match self {
            // A window opens with a request, so its other limit − 1 can come just before its end. Then come whole
            // windows.
            Self::FixedWindow => limit - 1 + span.div_ceil(window).max(1) * limit,
            Self::SlidingLog => span.div_ceil(window).max(1) * limit,
            // All units at once, and then as fast as they come back.
            Self::SlidingWindow | Self::TokenBucket => limit + span * limit / window,
            Self::Gcra => limit + span / u128::from(quota.interval()),
        };
        u64::try_from(bound).unwrap_or(u64::MAX)
    }
}

/// How clients are limited.
///
/// Invariant: there is at least one policy, and at most [`MAX_POLICIES`], each with a name of its own.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// Whether a refused request costs quota too. Then most algorithms keep a client out for as long as it goes on
    /// asking.
    pub count_refused: bool,
    policies: Vec<Policy>,
}

impl Limits {
    /// One policy, or several of which each must have room.
    pub fn new(algorithm: Algorithm, policies: Vec<Policy>) -> Result<Self, InvalidQuota> {
        let name_of = |n: usize| policies.get(n).map(Policy::name);
        if policies.is_empty() || policies.len() > MAX_POLICIES {
            return Err(InvalidQuota::TooMany);
        }
        if (1..policies.len()).any(|n| (0..n).any(|m| name_of(m) == name_of(n))) {
            return Err(InvalidQuota::SameName);
        }
        let too_long = |policy: &Policy| policy.quota().limit() > LONGEST_LOG;
        if algorithm == Algorithm::SlidingLog && policies.iter().any(too_long) {
            return Err(InvalidQuota::LongLog);
        }
        Ok(Self { algorithm, count_refused: false, policies })
    }

    /// The same, with refused requests counted or not.
    pub fn counting_refused(self, count_refused: bool) -> Self {
        Self { count_refused, ..self }
    }

    /// All policies.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }
}

// ANCHOR: counter
/// What is remembered of one client under one quota. The default is a client that was never seen.
///
/// Invariant: [`advance`](Self::advance) comes first; the others then speak of that same moment. A clock that
/// goes back is taken to stand still.
pub trait Counter: Default + Send {
    /// Forgets what no longer counts.
    fn advance(&mut self, quota: &Quota, now: Micros);
    /// Units that can be taken.
    fn remaining(&self, quota: &Quota, now: Micros) -> u64;
    /// Takes this many units, or all that there are. Whether they fit was asked before.
    fn take(&mut self, quota: &Quota, now: Micros, cost: u64);
    /// How long until this many units (at most the limit) fit, if nothing else is taken.
    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros;
    /// How long until this is as good as a client that was never seen: then it can be forgotten.
    fn whole(&self, quota: &Quota, now: Micros) -> Micros;
}
// ANCHOR_END: counter

#[cfg(test)]
mod tests;
