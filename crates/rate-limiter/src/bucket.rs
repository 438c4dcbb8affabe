//! How full is the bucket, or when is the next request due? One algorithm, seen from two sides.
//!
//! **Token bucket** remembers how many tokens are *missing* and when that was so: 16 bytes. Missing rather than
//! present, so that a client that was never seen has a full bucket and needs no state. It counts in parts of a token: a
//! token has `window` parts, and `limit` parts flow in each microsecond. So all numbers are whole, and nothing is ever
//! rounded. **Bound**: in any span of length `d` at most `limit × (1 + d / window)` pass: a full bucket at once, and
//! what flows in. Over a whole window that is twice the limit.
//!
//! **GCRA**, the generic cell rate algorithm, remembers one timestamp, 8 bytes: the *theoretical arrival time*, at which a
//! client that sends evenly would send its next request. Each request moves it on by the interval `T = window / limit`. A
//! client that is ahead of it by more than a whole limit of intervals is too fast. **Bound**: in any span of length `d` at
//! most `limit + d / T` pass. `T` is rounded up to a microsecond, so the long-run rate can be a little lower than was
//! asked for (by 0.1 % at 1,000 a second).

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota},
};

/// What is missing in the bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBucket {
    missing: u64,
    at: Micros,
}

// ANCHOR: token_bucket
impl Counter for TokenBucket {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        let passed = now.saturating_sub(self.at);
        self.missing = self.missing.saturating_sub(passed.saturating_mul(quota.limit()));
        self.at = self.at.max(now);
    }

    fn remaining(&self, quota: &Quota, _: Micros) -> u64 {
        (quota.limit() * quota.window() - self.missing) / quota.window()
    }

    fn take(&mut self, quota: &Quota, _: Micros, cost: u64) {
        let empty = quota.limit() * quota.window();
        self.missing = (self.missing + cost * quota.window()).min(empty);
    }

    fn wait(&self, quota: &Quota, _: Micros, cost: u64) -> Micros {
        let enough = (quota.limit() - cost) * quota.window();
        self.missing.saturating_sub(enough).div_ceil(quota.limit())
    }

    fn whole(&self, quota: &Quota, _: Micros) -> Micros {
        self.missing.div_ceil(quota.limit())
    }
}
// ANCHOR_END: token_bucket

/// The same in Redis. Lua's numbers are doubles. They are exact up to `limit × window` = 2⁵³: ten million in 15 minutes.
/// Above that the last bits are rounded, which can tell a client one unit more or less.
pub(crate) const TOKEN_BUCKET_LUA: &str = r"
local function read(c, now)
  local missing, at = parse(c.key, redis.pcall('GET', c.key), '^(%d+) (%d+)$')
  c.missing, c.at = 0, now
  if missing then
    c.missing = math.max(0, missing - math.max(0, now - at) * c.limit)
    c.at = math.max(at, now)
  end
end

local function remaining(c)
  return math.floor((c.limit * c.window - c.missing) / c.window)
end

local function whole(c) return math.ceil(c.missing / c.limit) end

local function wait(c)
  local enough = (c.limit - c.cost) * c.window
  return math.ceil(math.max(0, c.missing - enough) / c.limit)
end

local function take(c)
  c.missing = math.min(c.missing + c.cost * c.window, c.limit * c.window)
  save(c.key, string.format('%d %d', c.missing, c.at), whole(c))
end
";

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
        latest.saturating_sub(self.due) / quota.interval()
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

// ANCHOR: gcra_lua
/// The same in Redis.
pub(crate) const GCRA_LUA: &str = r"
local function read(c, now)
  c.interval = math.ceil(c.window / c.limit)
  c.due = math.max(parse(c.key, redis.pcall('GET', c.key), '^(%d+)$') or now, now)
end

local function remaining(c, now)
  return math.floor((now + c.limit * c.interval - c.due) / c.interval)
end

local function whole(c, now) return c.due - now end

local function wait(c, now)
  return math.max(0, c.due - now - (c.limit - c.cost) * c.interval)
end

local function take(c, now)
  local latest = math.max(now + c.limit * c.interval, c.due)
  c.due = math.min(c.due + c.cost * c.interval, latest)
  save(c.key, string.format('%d', c.due), whole(c, now))
end
";
// ANCHOR_END: gcra_lua
