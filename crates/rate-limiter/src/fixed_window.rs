//! Fixed window: how many requests since the window opened?
//!
//! **Remembers** a counter and when its window opened: 16 bytes. The window opens with the client's first request,
//! not on the stroke of the clock, so that not all clients come back at the same moment.
//!
//! **Bound**: in any span as long as the window at most `2 × limit − 1` pass: all but the opening request just
//! before the end of a window, and a whole limit just after it.

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota},
};

/// The counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedWindow {
    opened: Micros,
    used: u64,
}

// ANCHOR: fixed_window
impl Counter for FixedWindow {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        if now >= self.opened + quota.window() {
            self.used = 0;
        }
    }

    fn remaining(&self, quota: &Quota, _: Micros) -> u64 {
        quota.limit() - self.used
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        if self.used == 0 {
            self.opened = now;
        }
        self.used = (self.used + cost).min(quota.limit());
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        if self.used + cost <= quota.limit() { 0 } else { self.whole(quota, now) }
    }

    fn whole(&self, quota: &Quota, now: Micros) -> Micros {
        if self.used == 0 { 0 } else { (self.opened + quota.window()).saturating_sub(now) }
    }
}
// ANCHOR_END: fixed_window
