//! When was a value written? "Last write wins" needs an answer, and a clock gives one that may be wrong.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::version::Node;

/// What orders the values of a register that keeps only one: the greater tag wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag {
    /// For last-writer-wins, the microseconds since 1970 by the writer's clock; for an atomic register, a counter.
    pub number: u64,
    /// Decides between two with the same number.
    pub node: Node,
}

/// The clock that a node is given.
#[derive(Debug)]
pub struct Clock {
    /// How many microseconds it is ahead of the machine's.
    ahead: i64,
    /// Whether it also moves past every time that the node has seen.
    hybrid: bool,
    /// The last time that it gave.
    last: AtomicU64,
}

impl Clock {
    /// A clock that is this many milliseconds ahead of the machine's, or behind it.
    pub fn new(ahead_ms: i64, hybrid: bool) -> Self {
        Self { ahead: ahead_ms.saturating_mul(1_000), hybrid, last: AtomicU64::new(0) }
    }

    // ANCHOR: stamp
    /// A time for a new write of a key whose newest known value has the time `known`. A time is given once.
    pub fn stamp(&self, known: u64) -> u64 {
        let now = now().saturating_add_signed(self.ahead);
        // A hybrid logical clock: never behind what this node has seen of the key, whatever the time is.
        let floor = if self.hybrid { known } else { 0 };
        let next = |last: u64| now.max(last + 1).max(floor + 1);
        let last = self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| Some(next(it)));
        // `next` always returns a value.
        next(last.unwrap_or_default())
    }
    // ANCHOR_END: stamp
}

/// Microseconds since 1970, by the machine's clock.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn a_time_is_given_once() {
        for hybrid in [false, true] {
            let clock = Clock::new(0, hybrid);
            let times: Vec<_> = (0..1_000).map(|_| clock.stamp(0)).collect();
            assert!(times.is_sorted_by(|a, b| a < b), "{hybrid}");
        }
    }

    #[test]
    fn only_a_hybrid_clock_moves_past_what_a_fast_clock_wrote() {
        let fast = Clock::new(HOUR_MS, false).stamp(0);
        assert!(Clock::new(0, false).stamp(fast) < fast);
        assert!(Clock::new(0, true).stamp(fast) > fast);
        assert!(Clock::new(-HOUR_MS, true).stamp(fast) > fast);
    }
}
