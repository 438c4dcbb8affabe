//! Where does one process remember its clients, and how does that stay bounded?
//!
//! Invariant: never more than `max_keys` clients are remembered. A client whose quota is whole again is forgotten when
//! somebody new comes. When there is none, the one *nearest* to whole among eight must go, so that a flood of new
//! addresses pushes out its own, and not those that have used up their quota.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use indexmap::IndexMap;

use crate::{
    algorithm::{Algorithm, Counter},
    decision::{Decision, Outcome},
    fixed_window::FixedWindow,
    gcra::Gcra,
    key::Key,
    limiter::Limits,
    quota::{Micros, Quota},
    sliding_log::SlidingLog,
    sliding_window::SlidingWindow,
    token_bucket::TokenBucket,
};

/// So many threads can decide at once, about different clients.
const SHARDS: usize = 64;
/// Clients that are looked at for each new one.
const SAMPLE: usize = 8;

/// Tells the time. Any moment will do as its beginning.
pub type Clock = Arc<dyn Fn() -> Micros + Send + Sync>;

/// A clock that nobody can set back. It starts an hour before it is made: what never was must look old.
pub fn monotonic() -> Clock {
    let begun = Instant::now();
    Arc::new(move || {
        let passed = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        passed + 3_600_000_000
    })
}

/// What one process remembers.
pub struct Memory {
    table: Box<dyn Decide>,
    clock: Clock,
}

impl Memory {
    /// Remembers nobody yet.
    pub fn new(limits: &Limits, max_keys: usize, clock: Clock) -> Self {
        let table: Box<dyn Decide> = match limits.algorithm {
            Algorithm::FixedWindow => Box::new(Table::<FixedWindow>::new(limits, max_keys)),
            Algorithm::SlidingLog => Box::new(Table::<SlidingLog>::new(limits, max_keys)),
            Algorithm::SlidingWindow => Box::new(Table::<SlidingWindow>::new(limits, max_keys)),
            Algorithm::TokenBucket => Box::new(Table::<TokenBucket>::new(limits, max_keys)),
            Algorithm::Gcra => Box::new(Table::<Gcra>::new(limits, max_keys)),
        };
        Self { table, clock }
    }

    /// Decides, and takes if every policy has room.
    pub fn decide(&self, key: Key, cost: u64) -> Decision {
        self.table.decide(key, cost, (self.clock)())
    }

    /// How many clients are remembered, counted once for each policy.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("clients", &self.len()).finish_non_exhaustive()
    }
}

/// A [`Table`] of any algorithm.
trait Decide: Send + Sync {
    fn decide(&self, key: Key, cost: u64, now: Micros) -> Decision;
    fn len(&self) -> usize;
}

/// The counters of one algorithm.
struct Table<C> {
    quotas: Vec<Quota>,
    count_refused: bool,
    shards: Vec<Mutex<Shard<C>>>,
    /// For each policy, in each shard.
    max_keys: usize,
}

/// A part of the clients: their counters, a map for each policy.
struct Shard<C> {
    counters: Vec<IndexMap<Key, C>>,
    /// Where we looked last for somebody to forget.
    hand: usize,
}

impl<C: Counter> Table<C> {
    fn new(limits: &Limits, max_keys: usize) -> Self {
        let quotas: Vec<_> = limits.policies().iter().map(|policy| *policy.quota()).collect();
        // The first byte of a key says its shard; few keys need few shards.
        let shards = SHARDS.min(max_keys).max(1);
        let shard = || {
            let counters = quotas.iter().map(|_| IndexMap::new()).collect();
            Mutex::new(Shard { counters, hand: 0 })
        };
        Self {
            shards: (0..shards).map(|_| shard()).collect(),
            quotas: quotas.clone(),
            count_refused: limits.count_refused,
            max_keys: (max_keys / shards).max(1),
        }
    }
}

impl<C: Counter> Decide for Table<C> {
    // ANCHOR: decide_in_memory
    fn decide(&self, key: Key, cost: u64, now: Micros) -> Decision {
        let shard = &self.shards[usize::from(key.spread()) % self.shards.len()];
        // Held for well under a microsecond, and by nobody who waits for anything.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);

        // Every policy is asked before any takes: all or none.
        let (mut allowed, mut places) = (true, [0; crate::quota::MAX_POLICIES]);
        for (policy, (quota, place)) in self.quotas.iter().zip(&mut places).enumerate() {
            *place = shard.place(policy, key, quota, now, self.max_keys);
            let counter = &mut shard.counters[policy][*place];
            counter.advance(quota, now);
            allowed &= counter.wait(quota, now, cost.min(quota.limit())) == 0;
        }
        let mut decision = Decision::new(allowed);
        for ((quota, counters), place) in self.quotas.iter().zip(&mut shard.counters).zip(places) {
            let (counter, cost) = (&mut counters[place], cost.min(quota.limit()));
            let wait = counter.wait(quota, now, cost);
            if allowed || self.count_refused {
                counter.take(quota, now, cost);
            }
            decision.push(Outcome {
                remaining: counter.remaining(quota, now),
                wait: if allowed { 0 } else { wait },
                whole: counter.whole(quota, now),
            });
        }
        decision
    }
    // ANCHOR_END: decide_in_memory

    fn len(&self) -> usize {
        let clients = self.shards.iter().map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.counters.iter().map(IndexMap::len).sum::<usize>()
        });
        clients.sum()
    }
}

impl<C: Counter> Shard<C> {
    /// Where this client's counter is. Makes one, and room for it, if there is none.
    fn place(&mut self, policy: usize, key: Key, quota: &Quota, now: Micros, max: usize) -> usize {
        if let Some(place) = self.counters[policy].get_index_of(&key) {
            return place;
        }
        self.forget(policy, quota, now, max);
        self.counters[policy].insert_full(key, C::default()).0
    }

    // ANCHOR: forget
    /// Forgets, among the next few, all that are whole again; and one more, if there is no room otherwise.
    ///
    /// Two are looked at for each that comes, so the idle are gone after half as many newcomers as there were
    /// clients. No task sweeps: when nobody comes, nothing grows.
    fn forget(&mut self, policy: usize, quota: &Quota, now: Micros, max: usize) {
        let counters = &mut self.counters[policy];
        let full = counters.len() >= max;
        let mut nearest: Option<(Micros, usize)> = None;
        for _ in 0..if full { SAMPLE } else { 2 } {
            if counters.is_empty() {
                break;
            }
            self.hand = (self.hand + 1) % counters.len();
            let counter = &mut counters[self.hand];
            counter.advance(quota, now);
            let whole = counter.whole(quota, now);
            if whole == 0 {
                counters.swap_remove_index(self.hand);
                // Whoever was nearest may have moved; there is room now anyway.
                nearest = None;
            } else if nearest.is_none_or(|(least, _)| whole < least) {
                nearest = Some((whole, self.hand));
            }
        }
        if let (true, Some((_, place))) = (counters.len() >= max, nearest) {
            counters.swap_remove_index(place);
        }
    }
    // ANCHOR_END: forget
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::quota::Policy;

    fn limits(algorithm: Algorithm, policies: &[&str]) -> Limits {
        let policies: Vec<Policy> = policies.iter().map(|policy| policy.parse().unwrap()).collect();
        Limits::new(algorithm, policies).unwrap()
    }

    /// A memory, and the hands of its clock.
    fn memory(limits: &Limits, max_keys: usize) -> (Memory, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(1_000_000_000_000));
        let hands = Arc::clone(&now);
        let clock: Clock = Arc::new(move || hands.load(Ordering::Relaxed));
        (Memory::new(limits, max_keys, clock), now)
    }

    fn key(n: u32) -> Key {
        Key::of("test", &n.to_be_bytes())
    }

    #[test]
    fn a_fresh_client_gets_its_limit_and_not_one_more() {
        for algorithm in Algorithm::ALL {
            let (memory, _) = memory(&limits(algorithm, &["api=100/15m"]), 10);
            let passed = (0..150).filter(|_| memory.decide(key(1), 1).allowed).count();
            assert_eq!(passed, 100, "{algorithm:?}");
            assert!(memory.decide(key(2), 1).allowed, "another client is another");
        }
    }

    #[test]
    fn of_several_policies_all_take_or_none() {
        for algorithm in Algorithm::ALL {
            let limits = limits(algorithm, &["api=10/15m", "burst=3/1s"]);
            let (memory, now) = memory(&limits, 100);
            let remaining = |decision: &Decision| {
                decision.outcomes().iter().map(|outcome| outcome.remaining).collect::<Vec<_>>()
            };
            let mut decision = memory.decide(key(1), 3);
            assert!(decision.allowed);
            assert_eq!(remaining(&decision), [7, 0]);
            for _ in 0..20 {
                decision = memory.decide(key(1), 1);
                assert!(!decision.allowed && decision.wait() > 0 && decision.wait() <= 2_000_000);
                assert_eq!(remaining(&decision), [7, 0], "{algorithm:?}: a refused one took");
            }
            now.fetch_add(2_000_000, Ordering::Relaxed);
            assert_eq!(remaining(&memory.decide(key(1), 1)), [6, 2], "{algorithm:?}");
        }
    }

    #[test]
    fn a_cost_above_the_limit_takes_all_and_passes_once() {
        for algorithm in Algorithm::ALL {
            let (memory, _) = memory(&limits(algorithm, &["api=10/15m"]), 100);
            assert!(memory.decide(key(1), 1_000).allowed);
            assert!(!memory.decide(key(1), 1).allowed, "{algorithm:?}");
            assert!(memory.decide(key(1), 0).allowed, "what costs nothing always passes");
        }
    }

    #[test]
    fn refused_requests_that_count_keep_an_impatient_client_out() {
        for (algorithm, impatient) in [
            (Algorithm::FixedWindow, true),
            (Algorithm::SlidingLog, false),
            (Algorithm::SlidingWindow, false),
            (Algorithm::TokenBucket, false),
            (Algorithm::Gcra, false),
        ] {
            for count_refused in [false, true] {
                let limits = limits(algorithm, &["api=10/1s"]).counting_refused(count_refused);
                let (memory, now) = memory(&limits, 100);
                let mut passed = 0;
                // Fifty times a second for three seconds.
                for _ in 0..150 {
                    passed += u64::from(memory.decide(key(1), 1).allowed);
                    now.fetch_add(20_000, Ordering::Relaxed);
                }
                // A fixed window forgets at its end, whatever was counted.
                let expected = !count_refused || impatient;
                assert_eq!(passed > 20, expected, "{algorithm:?} {count_refused}: {passed} passed");
            }
        }
    }

    #[test]
    fn no_more_clients_are_remembered_than_allowed_and_the_heavy_ones_last() {
        let (memory, _) = memory(&limits(Algorithm::Gcra, &["api=100/15m"]), 640);
        for heavy in 0..20 {
            for _ in 0..100 {
                memory.decide(key(heavy), 1);
            }
        }
        for light in 100..50_000 {
            memory.decide(key(light), 1);
            assert!(memory.len() <= 640);
        }
        let forgotten = (0..20).filter(|&heavy| memory.decide(key(heavy), 1).allowed).count();
        assert_eq!(forgotten, 0, "a flood of new clients pushed out the heavy ones");
    }

    #[test]
    fn idle_clients_are_forgotten() {
        for algorithm in Algorithm::ALL {
            let (memory, now) = memory(&limits(algorithm, &["api=100/1s"]), 100_000);
            for n in 0..10_000 {
                memory.decide(key(n), 1);
            }
            assert_eq!(memory.len(), 10_000);
            now.fetch_add(3_000_000, Ordering::Relaxed);
            // The newcomers themselves are remembered, so what is left is they.
            for n in 20_000..26_000 {
                memory.decide(key(n), 1);
            }
            assert!(memory.len() <= 7_000, "{algorithm:?}: {}", memory.len());
        }
    }
}
