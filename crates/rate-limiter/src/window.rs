//! How many requests in this window? Two ways to count: forget the last window, or let it fade out.
//!
//! **Fixed window** remembers a counter and when its window opened: 16 bytes. The window opens with the client's first
//! request and not on the stroke of the clock, so that not all clients come back at the same moment. **Bound**: in any
//! span as long as the window at most `2 × limit − 1` pass: all but the opening request just before the end of a window,
//! and a whole limit just after it.
//!
//! **Sliding window counter** remembers two counters and when the newer window opened: 24 bytes. It assumes that the
//! requests of the older window came evenly, so its counter fades out as that window leaves the last `window` behind.
//! **Bound**: in any span of length `d` up to the window at most `limit × (1 + d / window)` pass. So there is no burst at
//! the edge, but over a whole window it can be nearly twice the limit: a client that sends a whole limit at the very end
//! of a window is believed to have spread it evenly.

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota},
};

/// A counter, and when its window opened.
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

/// The same in Redis.
pub(crate) const FIXED_WINDOW_LUA: &str = r"
local function read(c, now)
  local opened, used = parse(c.key, redis.pcall('GET', c.key), '^(%d+) (%d+)$')
  c.opened, c.used = tonumber(opened or 0), tonumber(used or 0)
  if now >= c.opened + c.window then c.used = 0 end
end

local function remaining(c) return c.limit - c.used end

local function whole(c, now)
  return c.used == 0 and 0 or math.max(0, c.opened + c.window - now)
end

local function wait(c, now)
  return c.used + c.cost <= c.limit and 0 or whole(c, now)
end

local function take(c, now)
  if c.used == 0 then c.opened = now end
  c.used = math.min(c.used + c.cost, c.limit)
  save(c.key, string.format('%d %d', c.opened, c.used), whole(c, now))
end
";

/// Two counters, and when the newer window opened.
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
            // In the next one, in which this window's counter fades.
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

/// The same in Redis.
pub(crate) const SLIDING_WINDOW_LUA: &str = r"
local function read(c, now)
  local opened, current, previous =
    parse(c.key, redis.pcall('GET', c.key), '^(%d+) (%d+) (%d+)$')
  c.opened, c.current, c.previous =
    tonumber(opened or 0), tonumber(current or 0), tonumber(previous or 0)
  local windows = math.floor(math.max(0, now - c.opened) / c.window)
  if windows == 1 then
    c.opened, c.current, c.previous = c.opened + c.window, 0, c.current
  elseif windows > 1 then
    c.opened, c.current, c.previous = now, 0, 0
  end
  c.left = math.min(c.window, c.opened + c.window - now)
end

local function remaining(c)
  return c.limit - c.current - math.ceil(c.previous * c.left / c.window)
end

local function whole(c)
  if c.current > 0 then return c.left + c.window end
  return c.previous > 0 and c.left or 0
end

local function fading(c, counter, target, left)
  if counter == 0 then return 0 end
  return math.max(0, left - math.floor(target * c.window / counter))
end

local function wait(c)
  local room = c.limit - c.cost
  if c.current <= room then return fading(c, c.previous, room - c.current, c.left) end
  return c.left + fading(c, c.current, room, c.window)
end

local function take(c, now)
  if c.current + c.previous == 0 then c.opened, c.left = now, c.window end
  c.current = math.min(c.current + c.cost, c.limit)
  save(c.key, string.format('%d %d %d', c.opened, c.current, c.previous), whole(c))
end
";
