//! How do many processes count together? In Redis: one script for each algorithm, one round trip for each request.
//!
//! Invariant: deciding and taking are one step. Redis runs one script at a time, so no other script can come between
//! the two. And only its clock counts, so it does not matter what ours say.
//!
//! All keys of one client have its digest in braces, the *hash tag*, so a Redis Cluster keeps them in one slot and one
//! script can reach them. They expire when the quota is whole again.

use std::{io, time::Duration};

use redis::{Client, RedisError, Script, aio::MultiplexedConnection};

use crate::{
    algorithm::{Algorithm, Limits},
    bucket::{GCRA_LUA, TOKEN_BUCKET_LUA},
    client::Key,
    connection::Connection,
    quota::{Decision, Micros, Outcome},
    sliding_log::SLIDING_LOG_LUA,
    window::{FIXED_WINDOW_LUA, SLIDING_WINDOW_LUA},
};

/// What every script begins with.
const COMMON_LUA: &str = r"
-- A counter that no process of ours wrote can never be read, so it is deleted and starts again. Any other error says
-- nothing about the counter, and is passed on.
local function parse(key, state, pattern)
  if not state then return end
  local a, b, c = string.match(state.err and '' or state, pattern)
  if a then return a, b, c end
  if state.err and not string.find(state.err, 'WRONGTYPE', 1, true) then error(state) end
  redis.log(redis.LOG_WARNING, 'an unreadable rate limit counter was deleted')
  redis.call('UNLINK', key)
end

-- `%d` everywhere: Redis takes microseconds to print a number that may be a fraction.
local function save(key, state, whole)
  redis.call('SET', key, state, 'PX', string.format('%d', whole / 1000 + 2))
end
";

// ANCHOR: decide_lua
/// What every script ends with: it asks every policy before any takes, so all or none.
///
/// KEYS: one for each policy. ARGV: the cost, how many more units to take if there is room (a lease), whether a refused
/// request counts, then limit and window of each policy.
const DECIDE_LUA: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost, spare, count_refused = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local counters, allowed = {}, true
for i = 1, #KEYS do
  local limit, window = tonumber(ARGV[2 * i + 2]), tonumber(ARGV[2 * i + 3])
  local c = { key = KEYS[i], limit = limit, window = window, cost = math.min(cost, limit) }
  read(c, now)
  c.wait = wait(c, now)
  allowed = allowed and c.wait == 0
  spare = math.min(spare, remaining(c, now) - c.cost)
  counters[i] = c
end
if not allowed then spare = 0 end
local answer = { now, allowed and 1 or 0, spare }
for i = 1, #counters do
  local c = counters[i]
  c.cost = c.cost + spare
  if allowed or count_refused then take(c, now) end
  answer[#answer + 1] = math.max(0, remaining(c, now))
  answer[#answer + 1] = allowed and 0 or c.wait
  answer[#answer + 1] = whole(c, now)
end
return answer
";
// ANCHOR_END: decide_lua

/// A Redis, and the scripts that run in it.
#[derive(Debug)]
pub struct Shared {
    connection: Connection,
    /// What every key begins with.
    prefix: String,
    scripts: [Script; 5],
}

/// What Redis says.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// When it decided, by its clock.
    pub at: Micros,
    /// What it decided.
    pub decision: Decision,
    /// Units that it took beyond the cost: the lease.
    pub spare: u64,
}

impl Shared {
    /// Connects in a task of its own, so Redis need not be there yet. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str, timeout: Duration) -> Result<Self, RedisError> {
        let connection = Connection::new(Client::open(url)?, timeout);
        let scripts = Algorithm::ALL.map(|it| Script::new(&text(it)));
        Ok(Self { connection, prefix: prefix.to_owned(), scripts })
    }

    /// How long it may take to answer.
    pub fn timeout(&self) -> Duration {
        self.connection.timeout()
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), RedisError> {
        self.connection
            .within(async |mut redis| redis::cmd("PING").exec_async(&mut redis).await)
            .await
    }

    // ANCHOR: decide_in_redis
    /// Decides, and takes `cost` units if every policy has room, with up to `spare` more.
    pub async fn decide(
        &self,
        limits: &Limits,
        key: Key,
        cost: u64,
        spare: u64,
    ) -> Result<Grant, RedisError> {
        let mut call = self.scripts[limits.algorithm as usize].prepare_invoke();
        call.arg(cost).arg(spare).arg(u8::from(limits.count_refused));
        for (key, policy) in self.keys(limits, key).iter().zip(limits.policies()) {
            call.key(key).arg(policy.quota().limit()).arg(policy.quota().window());
        }
        // The script is called by its hash. Its text is sent too if Redis does not know it, or has forgotten it.
        let call = &call;
        let invoke = |mut redis: MultiplexedConnection| async move {
            call.invoke_async::<Vec<u64>>(&mut redis).await
        };
        let answer = self.connection.within(invoke).await?;
        grant(&answer).ok_or_else(|| RedisError::from(io::Error::other("no decision")))
    }
    // ANCHOR_END: decide_in_redis

    /// The quota is in the name. Counters of another quota mean something else: a bucket that misses a million parts
    /// of a token is nearly full under one quota and empty for days under another.
    pub(crate) fn keys(&self, limits: &Limits, key: Key) -> Vec<String> {
        let (prefix, algorithm) = (&self.prefix, limits.algorithm.name());
        let policies = limits.policies().iter();
        policies.map(|policy| format!("{prefix}{{{key}}}:{algorithm}:{policy}")).collect()
    }
}

fn grant(answer: &[u64]) -> Option<Grant> {
    let [at, allowed, spare, outcomes @ ..] = answer else { return None };
    let mut decision = Decision::new(*allowed == 1);
    for outcome in outcomes.chunks_exact(3) {
        let [remaining, wait, whole] = *outcome else { return None };
        decision.push(Outcome { remaining, wait, whole });
    }
    Some(Grant { at: *at, decision, spare: *spare })
}

/// An algorithm's functions, between what is the same for all.
pub(crate) fn text(algorithm: Algorithm) -> String {
    let functions = match algorithm {
        Algorithm::FixedWindow => FIXED_WINDOW_LUA,
        Algorithm::SlidingLog => SLIDING_LOG_LUA,
        Algorithm::SlidingWindow => SLIDING_WINDOW_LUA,
        Algorithm::TokenBucket => TOKEN_BUCKET_LUA,
        Algorithm::Gcra => GCRA_LUA,
    };
    [COMMON_LUA, functions, DECIDE_LUA].concat()
}
