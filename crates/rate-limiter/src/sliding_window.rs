//! Sliding window counter: how many requests in the last window, if those of the one before came evenly?
//!
//! **Remembers** two counters and when the newer window opened: 24 bytes. The older counter fades out as its window
//! leaves the last `window` behind.
//!
//! **Bound**: in any span of length `d` up to the window at most `limit × (1 + d / window)` pass. So there is no burst at the edge,
//! but over a whole window it can be nearly twice the limit: who sends a limit at the very end of a window is
//! believed to have spread it evenly, and gets it back evenly.

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota},
};

/// The counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlidingWindow {
    opened: Micros,
    current: u64,
    previous: u64,
}

impl SlidingWindow {
    /// What is left of the older counter, `left` before the newer window ends. Rounded up: half a request is one.
    fn faded(&self, quota: &Quota, left: Micros) -> u64 {
        (self.previous * left).div_ceil(quota.window())
    }

    fn left(&self, quota: &Quota, now: Micros) -> Micros {
        (self.opened + quota.window()).saturating_sub(now).min(quota.window())
    }

    /// How long until a counter, `left` before the end of the window in which it fades, has faded to `target`.
    fn fading(counter: u64, target: u64, left: Micros, quota: &Quota) -> Micros {
        let enough = (target * quota.window()).checked_div(counter);
        enough.map_or(0, |enough| left.saturating_sub(enough))
    }
}

// ANCHOR: sliding_window
impl Counter for SlidingWindow {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        match now.saturating_sub(self.opened) / quota.window() {
            0 => {}
            1 => {
                self.previous = self.current;
                self.current = 0;
                self.opened += quota.window();
            }
            _ => *self = Self { opened: now, ..Self::default() },
        }
    }

    fn remaining(&self, quota: &Quota, now: Micros) -> u64 {
        let faded = self.faded(quota, self.left(quota, now));
        quota.limit().saturating_sub(self.current + faded)
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        if self.current + self.previous == 0 {
            self.opened = now;
        }
        self.current = (self.current + cost).min(quota.limit());
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        let (left, room) = (self.left(quota, now), quota.limit() - cost);
        if self.current <= room {
            // In this window: until enough of the older counter has faded.
            Self::fading(self.previous, room - self.current, left, quota)
        } else {
            // In the next one, in which it is this window's counter that fades.
            left + Self::fading(self.current, room, quota.window(), quota)
        }
    }

    fn whole(&self, quota: &Quota, now: Micros) -> Micros {
        match (self.current, self.previous) {
            (0, 0) => 0,
            (0, _) => self.left(quota, now),
            _ => self.left(quota, now) + quota.window(),
        }
    }
}
// ANCHOR_END: sliding_window
