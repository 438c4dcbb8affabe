//! Sliding log: when was each request of the last window?
//!
//! **Remembers** the time of each unit that was taken: 8 bytes each, so `limit` times as much as the others.
//!
//! **Bound**: exact. In any span as long as the window at most `limit` pass. This is the definition that the
//! others are measured against.

use std::collections::VecDeque;

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota},
};

/// The times, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct SlidingLog {
    taken: VecDeque<Micros>,
}

// ANCHOR: sliding_log
impl Counter for SlidingLog {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        while self.taken.front().is_some_and(|&taken| taken + quota.window() <= now) {
            self.taken.pop_front();
        }
    }

    fn remaining(&self, quota: &Quota, _: Micros) -> u64 {
        quota.limit() - self.taken.len() as u64
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        for _ in 0..cost {
            // Only a refused request that counts finds it full: it pushes out the oldest.
            if self.remaining(quota, now) == 0 {
                self.taken.pop_front();
            }
            self.taken.push_back(now);
        }
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        // So many of the oldest have to go first, and the last of those is the one to wait for.
        let missing = cost.saturating_sub(self.remaining(quota, now));
        let last =
            missing.checked_sub(1).and_then(|last| self.taken.get(usize::try_from(last).ok()?));
        last.map_or(0, |taken| (taken + quota.window()).saturating_sub(now))
    }

    fn whole(&self, quota: &Quota, now: Micros) -> Micros {
        self.taken.back().map_or(0, |taken| (taken + quota.window()).saturating_sub(now))
    }
}
// ANCHOR_END: sliding_log
