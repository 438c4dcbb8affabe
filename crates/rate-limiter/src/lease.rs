//! How does a busy client cost less than a round trip for each request? The process remembers what Redis said.
//!
//! **A refusal** is remembered until the moment at which Redis said that the request would pass, counted from when we
//! asked. Nobody could get in earlier: quota comes back with time alone, and what others take only makes the wait longer.
//! So this changes no decision. It is remembered for a second at most: a counter that an operator deletes in Redis is
//! soon forgotten here too.
//!
//! **A lease** is a few units that the process takes from Redis beyond what it was asked for, and spends by itself. That
//! changes decisions. Invariant: a process holds at most `size − 1` units of a client. So with `n` processes, in any span
//! of time at most `n × (size − 1)` more units pass than the algorithm's bound, namely those that were held when the span
//! began. And a client is refused at most that many units too early, namely those that other processes hold.

use std::{
    collections::HashMap,
    io, mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redis::RedisError;
use tokio::time::timeout;

use crate::{
    algorithm::Limits,
    client::Key,
    memory::Clock,
    quota::{Decision, Micros, Outcome},
    shared::Shared,
};

/// A refusal is remembered for no longer than this.
const REMEMBERED_FOR: Micros = 1_000_000;
/// Clients are spread over this many parts.
const PARTS: usize = 256;

/// What one process remembers of what Redis said.
pub struct Leases {
    /// Units that a process takes at once. With 1 it never holds any.
    size: u64,
    /// Clients to remember in each part.
    most: usize,
    parts: Vec<Part>,
    clock: Clock,
}

#[derive(Default)]
struct Part {
    clients: Mutex<HashMap<Key, Known>>,
    /// Held while Redis is asked for a lease. Without it each of a client's concurrent requests would take one, and the
    /// process would hold them all. Clients of one part wait for each other's round trips.
    turn: tokio::sync::Mutex<()>,
}

/// What is known of one client.
struct Known {
    /// What Redis said last, and when it was asked.
    decision: Decision,
    asked: Micros,
    /// Units that we hold, until the quota would be whole again without them.
    held: u64,
    held_until: Micros,
    /// The cost of the request that was refused, and until when such a request would be refused again.
    refused: Option<(u64, Micros)>,
}

impl Known {
    fn is_over(&self, now: Micros) -> bool {
        let refused_until = self.refused.map_or(0, |(_, until)| until);
        now >= refused_until && (self.held == 0 || now >= self.held_until)
    }

    /// Takes out all units that are held, for a request that is going to ask for more.
    fn take(&mut self, now: Micros) -> u64 {
        let held = mem::take(&mut self.held);
        if now < self.held_until { held } else { 0 }
    }

    // ANCHOR: remembered
    /// Decides without Redis, if what is known is enough for that.
    fn decide(&mut self, cost: u64, now: Micros) -> Option<Decision> {
        if cost <= self.held && now < self.held_until {
            self.held -= cost;
            return Some(self.decision_at(true, now));
        }
        // A request that costs less may pass where a more expensive one was refused.
        let (least, until) = self.refused?;
        (cost >= least && now < until).then(|| self.decision_at(false, now))
    }
    // ANCHOR_END: remembered

    /// What Redis would say now, as far as we know.
    fn decision_at(&self, allowed: bool, now: Micros) -> Decision {
        let passed = now.saturating_sub(self.asked);
        let mut decision = Decision::new(allowed);
        for outcome in self.decision.outcomes() {
            decision.push(Outcome {
                remaining: outcome.remaining + self.held,
                wait: if allowed { 0 } else { outcome.wait.saturating_sub(passed) },
                whole: outcome.whole.saturating_sub(passed),
            });
        }
        decision
    }
}

impl Leases {
    /// Knows nobody yet.
    pub fn new(size: u64, max_keys: usize, clock: Clock) -> Self {
        let parts = (0..PARTS).map(|_| Part::default()).collect();
        Self { size: size.max(1), most: max_keys.div_ceil(PARTS), parts, clock }
    }

    // ANCHOR: decide_with_leases
    /// Decides from what is remembered; otherwise asks Redis, and remembers what it says.
    pub async fn decide(
        &self,
        shared: &Shared,
        limits: &Limits,
        key: Key,
        cost: u64,
    ) -> Result<Decision, RedisError> {
        if limits.count_refused {
            // Each refusal changes the counter, so each has to get to Redis.
            return Ok(shared.decide(limits, key, cost, 0).await?.decision);
        }
        let part = &self.parts[key.spread() % PARTS];
        let remembered = || part.clients().get_mut(&key)?.decide(cost, (self.clock)());
        if let Some(decision) = remembered() {
            return Ok(decision);
        }
        if self.size == 1 {
            return self.ask(part, shared, limits, (key, cost)).await;
        }
        let turn = timeout(shared.timeout(), part.turn.lock()).await;
        let _turn = turn.map_err(io::Error::from)?;
        // The request that had the turn before may have brought enough for this one too.
        match remembered() {
            Some(decision) => Ok(decision),
            None => self.ask(part, shared, limits, (key, cost)).await,
        }
    }
    // ANCHOR_END: decide_with_leases

    // ANCHOR: ask
    /// Asks Redis for what is missing, and for a lease beside it.
    async fn ask(
        &self,
        part: &Part,
        shared: &Shared,
        limits: &Limits,
        (key, cost): (Key, u64),
    ) -> Result<Decision, RedisError> {
        let asked = (self.clock)();
        // The held units are taken out meanwhile, so that no other request spends what this one counts on.
        let held = part.clients().get_mut(&key).map_or(0, |known| known.take(asked));
        let missing = cost.saturating_sub(held);
        let spare = self.size.saturating_sub(missing.max(1));
        let grant = match shared.decide(limits, key, missing, spare).await {
            Ok(grant) => grant,
            Err(error) => {
                if let Some(known) = part.clients().get_mut(&key) {
                    known.held += held;
                }
                return Err(error);
            }
        };
        let decision = grant.decision;
        let held = if decision.allowed { held + missing - cost + grant.spare } else { held };
        let whole = decision.outcomes().iter().map(|outcome| outcome.whole).max();
        let until = asked + decision.wait().min(REMEMBERED_FOR);
        let refused = (!decision.allowed).then_some((cost, until));
        let held_until = asked + whole.unwrap_or(0);
        let known = Known { decision, asked, held, held_until, refused };
        let decision = known.decision_at(decision.allowed, asked);
        self.remember(part, key, known);
        Ok(decision)
    }
    // ANCHOR_END: ask

    fn remember(&self, part: &Part, key: Key, known: Known) {
        let (mut clients, now) = (part.clients(), known.asked);
        if known.is_over(now) {
            clients.remove(&key);
            return;
        }
        if clients.len() >= self.most && !clients.contains_key(&key) {
            clients.retain(|_, known| !known.is_over(now));
            // Forgetting a refusal costs a round trip. Forgetting a lease costs its client the units in it.
            if clients.len() >= self.most
                && let Some(&any) = clients.keys().next()
            {
                clients.remove(&any);
            }
        }
        clients.insert(key, known);
    }
}

impl Part {
    fn clients(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asked at 1,000: one unit left in Redis, three to wait for, whole after ten thousand.
    fn known(held: u64, refused: Option<(u64, Micros)>) -> Known {
        let mut decision = Decision::new(refused.is_none());
        decision.push(Outcome { remaining: 1, wait: 3_000, whole: 10_000 });
        Known { decision, asked: 1_000, held, held_until: 11_000, refused }
    }

    #[test]
    fn a_refusal_is_remembered_until_it_is_over_for_requests_that_cost_as_much() {
        let mut known = known(0, Some((4, 4_000)));
        let decision = known.decide(4, 2_000).unwrap();
        assert!(!decision.allowed && decision.wait() == 2_000);
        assert_eq!(decision.outcomes()[0].whole, 9_000);
        assert!(known.decide(7, 3_999).is_some());
        assert!(known.decide(3, 2_000).is_none(), "a cheaper request may pass");
        assert!(known.decide(4, 4_000).is_none(), "its time is over");
    }

    #[test]
    fn units_that_are_held_are_spent_once_and_until_the_quota_is_whole() {
        let mut known = known(3, None);
        let decision = known.decide(2, 2_000).unwrap();
        assert!(decision.allowed && decision.wait() == 0);
        assert_eq!(decision.outcomes()[0].remaining, 2, "one in Redis, one here");
        assert!(known.decide(2, 2_000).is_none());
        assert!(known.decide(1, 11_000).is_none(), "the quota is whole without it");
        assert!(known.decide(1, 2_000).is_some());
    }

    #[test]
    fn what_is_taken_to_ask_for_more_cannot_be_spent_meanwhile() {
        let mut known = known(3, None);
        assert_eq!(known.take(2_000), 3);
        assert!(known.decide(1, 2_000).is_none());
        assert!(known.is_over(2_000));
    }
}
