//! Sliding log: when was each request of the last window?
//!
//! **Remembers** the time and the cost of each request that was let through: 16 bytes each, so up to `limit` times as
//! much as the others.
//!
//! **Bound**: exact. In any span as long as the window at most `limit` pass. This is the definition that the
//! others are measured against.

use std::collections::VecDeque;

use crate::{
    algorithm::Counter,
    quota::{Micros, Quota},
};

/// When, and how many units, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct SlidingLog {
    taken: VecDeque<(Micros, u64)>,
    /// The sum of the units.
    used: u64,
}

// ANCHOR: sliding_log
impl Counter for SlidingLog {
    fn advance(&mut self, quota: &Quota, now: Micros) {
        while let Some(&(at, units)) = self.taken.front()
            && at + quota.window() <= now
        {
            self.taken.pop_front();
            self.used -= units;
        }
    }

    fn remaining(&self, quota: &Quota, _: Micros) -> u64 {
        quota.limit() - self.used
    }

    fn take(&mut self, quota: &Quota, now: Micros, cost: u64) {
        if cost > 0 {
            self.taken.push_back((now, cost));
            self.used += cost;
        }
        // Only a refused request that counts finds the log full: it pushes out the oldest units.
        while self.used > quota.limit()
            && let Some((_, units)) = self.taken.front_mut()
        {
            let over = (self.used - quota.limit()).min(*units);
            *units -= over;
            self.used -= over;
            if *units == 0 {
                self.taken.pop_front();
            }
        }
    }

    fn wait(&self, quota: &Quota, now: Micros, cost: u64) -> Micros {
        // This many of the oldest units have to go first. The client waits for the last of them.
        let missing = cost.saturating_sub(self.remaining(quota, now));
        let mut gone = 0;
        let last = self.taken.iter().find(|(_, units)| {
            gone += units;
            gone >= missing
        });
        let wait = |&(at, _): &(Micros, u64)| (at + quota.window()).saturating_sub(now);
        if missing == 0 { 0 } else { last.map_or(0, wait) }
    }

    fn whole(&self, quota: &Quota, now: Micros) -> Micros {
        self.taken.back().map_or(0, |(at, _)| (at + quota.window()).saturating_sub(now))
    }
}
// ANCHOR_END: sliding_log

/// The same in Redis, as a list. Textbooks take a sorted set, which is larger, and which takes two requests of the same
/// microsecond for one unless each is made unique. An entry is a request, whatever it costs: pushing one entry for each
/// unit would block Redis. It says when, and how many units there were before it and after it, so that the units
/// between two entries are known without reading what lies between them.
pub(crate) const SLIDING_LOG_LUA: &str = r"
local ENTRY = '^(%d+) (%d+) (%d+)$'

local function entry(c, index)
  local at, from, to = string.match(redis.call('LINDEX', c.key, index), ENTRY)
  return tonumber(at), tonumber(from), tonumber(to)
end

-- The first entry for which `found` is true. By halves, since they are in order: there may be thousands.
local function first(c, found)
  local low, high = 0, c.length
  while low < high do
    local middle = math.floor((low + high) / 2)
    if found(entry(c, middle)) then high = middle else low = middle + 1 end
  end
  return low
end

local function drop(c, count)
  redis.call('LTRIM', c.key, count, -1)
  c.length = c.length - count
end

local function read(c, now)
  local last, _, to = parse(c.key, redis.pcall('LINDEX', c.key, -1), ENTRY)
  c.last, c.to, c.used, c.length = tonumber(last or 0), tonumber(to or 0), 0, 0
  if not last then return end
  c.length = redis.call('LLEN', c.key)
  if entry(c, 0) + c.window <= now then
    drop(c, first(c, function(at) return at + c.window > now end))
  end
  if c.length > 0 then
    local _, from = entry(c, 0)
    c.used = math.min(c.limit, c.to - from)
  end
end

local function remaining(c) return c.limit - c.used end

local function whole(c, now)
  return c.length == 0 and 0 or math.max(0, c.last + c.window - now)
end

local function wait(c, now)
  local missing = c.cost - remaining(c)
  if missing <= 0 then return 0 end
  local gone = c.to - c.used + missing
  return math.max(0, entry(c, first(c, function(_, _, to) return to >= gone end)) + c.window - now)
end

local function take(c, now)
  if c.cost == 0 then return end
  redis.call('RPUSH', c.key, string.format('%d %d %d', now, c.to, c.to + c.cost))
  c.last, c.to, c.used, c.length = now, c.to + c.cost, c.used + c.cost, c.length + 1
  if c.used > c.limit then
    drop(c, first(c, function(_, _, to) return to > c.to - c.limit end))
    c.used = c.limit
  end
  redis.call('PEXPIRE', c.key, string.format('%d', c.window / 1000 + 2))
end
";
