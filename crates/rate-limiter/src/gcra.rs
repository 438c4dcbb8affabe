//! GCRA, the generic cell rate algorithm: when is the next request due?
//!
//! **Remembers** one timestamp, 8 bytes: the *theoretical arrival time*, at which a client that sends evenly would send its
//! next request. Each request moves it on by the interval `T = window / limit`. Who is ahead of it by more than a
//! whole limit of intervals is too fast. It is the token bucket seen from the other side, with less to remember.
//!
//! **Bound**: in any span of length `d` at most `limit + d / T` pass, as with the token bucket. `T` is rounded up to a
//! microsecond, so the long-run rate can be a little lower than was asked for (by 0.1 % at 1,000 a second).

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota, divide},
};

/// The theoretical arrival time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gcra {
    due: Micros,
}

// ANCHOR: gcra
impl Counter for Gcra {
    fn advance(&mut self, _: &Quota, now: Micros) {
        self.due = self.due.max(now);
    }

    fn remaining(&self, quota: &Quota, now: Micros) -> u64 {
        let latest = now + quota.limit() * quota.interval();
        divide(latest.saturating_sub(self.due), quota.interval())
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        let latest = now + quota.limit() * quota.interval();
        self.due = (self.due + cost * quota.interval()).min(latest.max(self.due));
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        let latest = now + (quota.limit() - cost) * quota.interval();
        self.due.saturating_sub(latest)
    }

    fn whole(&self, _: &Quota, now: Micros) -> Micros {
        self.due.saturating_sub(now)
    }
}
// ANCHOR_END: gcra
