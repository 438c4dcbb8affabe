//! Where does one process remember its clients, and how does that stay bounded?
//!
//! Invariant: never more than `max_keys` clients are remembered. A client whose quota is whole again is forgotten when
//! somebody new comes. When there is none, the one *nearest* to whole among eight must go, so that a flood of new
//! addresses pushes out its own, and not those that have used up their quota.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use indexmap::IndexMap;

use crate::{
    algorithm::{Algorithm, Counter},
    decision::{Decision, Outcome},
    fixed_window::FixedWindow,
    gcra::Gcra,
    key::Key,
    limiter::Limits,
    quota::{MAX_POLICIES, Micros, Policy, Quota},
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

/// A clock that nobody can set back. It reads the processor's counter, which costs a third of what asking the
/// operating system does. It starts an hour before it is made: what never was must look old.
pub fn monotonic() -> Clock {
    let clock = quanta::Clock::new();
    let begun = clock.raw();
    Arc::new(move || clock.delta_as_nanos(begun, clock.raw()) / 1_000 + 3_600_000_000)
}

/// What one process remembers.
pub struct Memory {
    table: Box<dyn Decide>,
    clock: Clock,
}

impl Memory {
    /// Remembers nobody yet.
    pub fn new(limits: &Limits, max_keys: usize, clock: Clock) -> Self {
        let table = match limits.algorithm {
            Algorithm::FixedWindow => table::<FixedWindow>(limits, max_keys),
            Algorithm::SlidingLog => table::<SlidingLog>(limits, max_keys),
            Algorithm::SlidingWindow => table::<SlidingWindow>(limits, max_keys),
            Algorithm::TokenBucket => table::<TokenBucket>(limits, max_keys),
            Algorithm::Gcra => table::<Gcra>(limits, max_keys),
        };
        Self { table, clock }
    }

    /// Decides, and takes if every policy has room.
    pub fn decide(&self, key: Key, cost: u64) -> Decision {
        self.table.decide(key, cost, (self.clock)())
    }

    /// How many clients are remembered.
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

/// A table for as many policies as there are.
fn table<C: Counter + 'static>(limits: &Limits, max_keys: usize) -> Box<dyn Decide> {
    match limits.policies() {
        [one] => Box::new(Table::<C, 1>::new([one], limits, max_keys)),
        [one, two] => Box::new(Table::<C, 2>::new([one, two], limits, max_keys)),
        [one, two, three] => Box::new(Table::<C, 3>::new([one, two, three], limits, max_keys)),
        [one, two, three, four, ..] => {
            Box::new(Table::<C, MAX_POLICIES>::new([one, two, three, four], limits, max_keys))
        }
        // `Limits` holds one at least; without any, everything would pass.
        [] => Box::new(Table::<C, 0>::new([], limits, max_keys)),
    }
}

/// The counters of one algorithm. How many each client has is known when it is compiled, so they lie side by side.
struct Table<C, const POLICIES: usize> {
    quotas: [Quota; POLICIES],
    count_refused: bool,
    shards: Vec<Mutex<Shard<C, POLICIES>>>,
    /// In each shard.
    max_keys: usize,
}

/// A part of the clients.
struct Shard<C, const POLICIES: usize> {
    clients: IndexMap<Key, [C; POLICIES]>,
    /// Where we looked last for somebody to forget.
    hand: usize,
}

impl<C: Counter, const POLICIES: usize> Table<C, POLICIES> {
    fn new(policies: [&Policy; POLICIES], limits: &Limits, max_keys: usize) -> Self {
        // A power of two, to find a shard without a division. Few clients need few shards.
        let shards = if max_keys < SHARDS { 1 } else { SHARDS };
        let shard = || Mutex::new(Shard { clients: IndexMap::new(), hand: 0 });
        Self {
            quotas: policies.map(|policy| *policy.quota()),
            count_refused: limits.count_refused,
            shards: (0..shards).map(|_| shard()).collect(),
            max_keys: (max_keys / shards).max(1),
        }
    }
}

impl<C: Counter, const POLICIES: usize> Decide for Table<C, POLICIES> {
    // ANCHOR: decide_in_memory
    fn decide(&self, key: Key, cost: u64, now: Micros) -> Decision {
        let shard = &self.shards[key.spread() & (self.shards.len() - 1)];
        // Held for well under a microsecond, and by nobody who waits for anything.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = shard.counters(key, &self.quotas, now, self.max_keys);

        // Every policy is asked before any takes: all or none.
        let (mut allowed, mut waits) = (true, [0; POLICIES]);
        for ((counter, quota), wait) in counters.iter_mut().zip(&self.quotas).zip(&mut waits) {
            counter.advance(quota, now);
            *wait = counter.wait(quota, now, cost.min(quota.limit()));
            allowed &= *wait == 0;
        }
        let mut decision = Decision::new(allowed);
        for ((counter, quota), wait) in counters.iter_mut().zip(&self.quotas).zip(waits) {
            if allowed || self.count_refused {
                counter.take(quota, now, cost.min(quota.limit()));
            }
            decision.push(Outcome {
                remaining: counter.remaining(quota, now),
                wait,
                whole: counter.whole(quota, now),
            });
        }
        decision
    }
    // ANCHOR_END: decide_in_memory

    fn len(&self) -> usize {
        let shards = self.shards.iter();
        shards.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).clients.len()).sum()
    }
}

impl<C: Counter, const POLICIES: usize> Shard<C, POLICIES> {
    /// This client's counters. Makes them, and room for them, if there are none.
    fn counters(
        &mut self,
        key: Key,
        quotas: &[Quota; POLICIES],
        now: Micros,
        max: usize,
    ) -> &mut [C; POLICIES] {
        let place = self.clients.get_index_of(&key).unwrap_or_else(|| {
            self.forget(quotas, now, max);
            self.clients.insert_full(key, std::array::from_fn(|_| C::default())).0
        });
        &mut self.clients[place]
    }

    // ANCHOR: forget
    /// Makes room for one more. As long as there is memory that was asked for before, nobody has to go: forgetting
    /// clients who come back in a moment costs more than it saves. Then, among the next few, all go that are whole
    /// again; and one more, if the bound is reached.
    ///
    /// So the idle are gone before the memory grows. No task sweeps: when nobody comes, nothing grows.
    fn forget(&mut self, quotas: &[Quota; POLICIES], now: Micros, max: usize) {
        if self.clients.len() < max.min(self.clients.capacity()) {
            return;
        }
        let mut nearest: Option<(Micros, usize)> = None;
        for _ in 0..SAMPLE {
            if self.clients.is_empty() {
                break;
            }
            self.hand = (self.hand + 1) % self.clients.len();
            let counters = self.clients[self.hand].iter_mut().zip(quotas);
            let whole = counters.map(|(counter, quota)| {
                counter.advance(quota, now);
                counter.whole(quota, now)
            });
            let whole = whole.max().unwrap_or(0);
            if whole == 0 {
                self.clients.swap_remove_index(self.hand);
                // Whoever was nearest may have moved; there is room now anyway.
                nearest = None;
            } else if nearest.is_none_or(|(least, _)| whole < least) {
                nearest = Some((whole, self.hand));
            }
        }
        if let (true, Some((_, place))) = (self.clients.len() >= max, nearest) {
            self.clients.swap_remove_index(place);
        }
    }
    // ANCHOR_END: forget
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

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
    fn idle_clients_are_forgotten_before_the_memory_grows() {
        for algorithm in Algorithm::ALL {
            let (memory, now) = memory(&limits(algorithm, &["api=100/1s"]), 100_000);
            let (mut idle, mut busy) = (0, 0);
            // Ten waves of other clients. After each the others rest, and in the end they do not.
            for n in 0..100_000 {
                if n % 5_000 == 0 && n < 50_000 {
                    now.fetch_add(3_000_000, Ordering::Relaxed);
                }
                memory.decide(key(n), 1);
                if n < 50_000 {
                    idle = idle.max(memory.len());
                }
                busy = memory.len();
            }
            assert!(idle < 16_000, "{algorithm:?}: {idle} of 50,000 remembered, 5,000 were not idle");
            assert!(busy > 49_000, "{algorithm:?}: {busy} of 50,000 remembered, who were not idle");
        }
    }
}
