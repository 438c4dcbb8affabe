//! How do many processes count together? In Redis: one script for each algorithm, one round trip for each request.
//!
//! Invariant: what is decided is taken in the same step. Redis runs one script at a time, so nobody else can look
//! between the look and the taking; and its clock is the only one, so it does not matter what ours say.
//!
//! All keys of one client have its digest in braces, the *hash tag*, so a Redis Cluster keeps them in one slot and one
//! script can reach them. They expire when the quota is whole again.

use std::time::Duration;

use redis::{Client, RedisError, Script, aio::MultiplexedConnection};

use crate::{
    algorithm::Algorithm,
    connection::Connection,
    decision::{Decision, Outcome},
    key::Key,
    limits::Limits,
    quota::Micros,
};

/// A Redis, and the scripts that run in it.
#[derive(Debug)]
pub struct Shared {
    connection: Connection,
    /// What every key begins with.
    prefix: String,
    scripts: [Script; 5],
}

impl Shared {
    /// Connects when it is first asked, so Redis need not be there yet. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str, timeout: Duration) -> Result<Self, RedisError> {
        let connection = Connection::new(Client::open(url)?, timeout);
        Ok(Self {
            connection,
            prefix: prefix.to_owned(),
            scripts: Algorithm::ALL.map(|it| Script::new(&text(it))),
        })
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), RedisError> {
        self.connection
            .within(async |mut redis| redis::cmd("PING").exec_async(&mut redis).await)
            .await
    }

    /// Decides, and takes if every policy has room.
    pub async fn decide(
        &self,
        limits: &Limits,
        key: Key,
        cost: u64,
    ) -> Result<Decision, RedisError> {
        self.decide_at(limits, key, cost).await.map(|(_, decision)| decision)
    }

    // ANCHOR: decide_in_redis
    /// Also tells the moment at which Redis decided.
    pub async fn decide_at(
        &self,
        limits: &Limits,
        key: Key,
        cost: u64,
    ) -> Result<(Micros, Decision), RedisError> {
        let keys = &self.keys(limits, key);
        let mut call = self.scripts[limits.algorithm as usize].prepare_invoke();
        call.arg(cost).arg(u8::from(limits.count_refused));
        for (key, policy) in keys.iter().zip(limits.policies()) {
            call.key(key).arg(policy.quota().limit()).arg(policy.quota().window());
        }
        // By its hash; and with its text once, where Redis does not know it or has forgotten it.
        let call = &call;
        let commands = |mut redis: MultiplexedConnection| async move {
            match call.invoke_async(&mut redis).await {
                Err(error) if unreadable(&error) => {
                    tracing::warn!(
                        code = error.code(),
                        "a counter was unreadable, and starts again"
                    );
                    redis::cmd("UNLINK").arg(keys).exec_async(&mut redis).await?;
                    call.invoke_async::<Vec<u64>>(&mut redis).await
                }
                answer => answer,
            }
        };
        let answer = self.connection.within(commands).await?;
        decision(&answer).ok_or_else(|| RedisError::from(std::io::Error::other("no decision")))
    }
    // ANCHOR_END: decide_in_redis

    pub(crate) fn keys(&self, limits: &Limits, key: Key) -> Vec<String> {
        let (prefix, algorithm) = (&self.prefix, limits.algorithm.name());
        let key = |name: &str| format!("{prefix}{{{key}}}:{algorithm}:{name}");
        limits.policies().iter().map(|policy| key(policy.name())).collect()
    }
}

/// A key of another type, or a value that is not ours: the script cannot go on, and would not tomorrow either.
fn unreadable(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGTYPE" | "ERR"))
}

/// The moment, whether it may pass, and three numbers for each policy.
fn decision(answer: &[u64]) -> Option<(Micros, Decision)> {
    let [now, allowed, outcomes @ ..] = answer else { return None };
    let mut decision = Decision::new(*allowed == 1);
    for outcome in outcomes.chunks_exact(3) {
        let [remaining, wait, whole] = *outcome else { return None };
        decision.push(Outcome { remaining, wait, whole });
    }
    Some((*now, decision))
}

/// An algorithm's functions, and what is the same for all.
pub(crate) fn text(algorithm: Algorithm) -> String {
    let functions = match algorithm {
        Algorithm::FixedWindow => include_str!("lua/fixed_window.lua"),
        Algorithm::SlidingLog => include_str!("lua/sliding_log.lua"),
        Algorithm::SlidingWindow => include_str!("lua/sliding_window.lua"),
        Algorithm::TokenBucket => include_str!("lua/token_bucket.lua"),
        Algorithm::Gcra => include_str!("lua/gcra.lua"),
    };
    format!("{functions}\n{}", include_str!("lua/decide.lua"))
}
