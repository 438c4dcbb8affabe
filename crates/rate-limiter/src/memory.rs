//! Where does one process remember its clients, and how does that stay bounded?
//!
//! Invariant: never more than `max_keys` clients are remembered. Clients whose quota is whole again are forgotten
//! before the memory grows. At the bound, of eight clients the one *nearest* to whole is forgotten. So a flood of new
//! addresses pushes out its own entries, and not those of clients that have used up their quota.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::HashTable;

use crate::{
    algorithm::{Algorithm, Counter, Limits},
    bucket::{Gcra, TokenBucket},
    client::Key,
    quota::{Decision, MAX_POLICIES, Micros, Outcome, Policy, Quota},
    sliding_log::SlidingLog,
    window::{FixedWindow, SlidingWindow},
};

/// This many threads can decide at once, about different clients.
const SHARDS: usize = 64;
/// Clients that are looked at for each new one.
const SAMPLE: usize = 8;

/// Tells the time. Any moment will do as its beginning.
pub type Clock = Arc<dyn Fn() -> Micros + Send + Sync>;

/// A clock that nobody can set back. It reads the processor's counter, which costs a third of what asking the operating
/// system does. It starts an hour before it is made, so that a counter that was never used looks old.
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

    /// How many clients are remembered.
    pub fn clients(&self) -> usize {
        self.table.len()
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
    /// In each shard.
    max_keys: usize,
    /// Seeded in each process: a client that can choose keys cannot make them collide.
    hasher: RandomState,
}

/// A part of the clients.
struct Shard<C> {
    /// Each with a counter for each policy.
    clients: HashTable<(Key, Box<[C]>)>,
    /// The bucket where we looked last for a client to forget.
    hand: usize,
}

impl<C: Counter> Table<C> {
    fn new(limits: &Limits, max_keys: usize) -> Self {
        // A power of two, to find a shard without a division. Few clients need few shards.
        let shards = if max_keys < SHARDS { 1 } else { SHARDS };
        let shard = || Mutex::new(Shard { clients: HashTable::new(), hand: 0 });
        Self {
            quotas: limits.policies().iter().map(Policy::quota).copied().collect(),
            count_refused: limits.count_refused,
            shards: (0..shards).map(|_| shard()).collect(),
            max_keys: (max_keys / shards).max(1),
            hasher: RandomState::new(),
        }
    }
}

impl<C: Counter> Decide for Table<C> {
    // ANCHOR: decide_in_memory
    fn decide(&self, key: Key, cost: u64, now: Micros) -> Decision {
        let shard = &self.shards[key.spread() & (self.shards.len() - 1)];
        // Held for the time of a few sums, or of one sweep of a shard, and never while anything is awaited.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = shard.counters(key, self, now);

        // Every policy is asked before any takes: all or none.
        let (mut allowed, mut waits) = (true, [0; MAX_POLICIES]);
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

impl<C: Counter> Shard<C> {
    /// This client's counters. Makes them, and room for them, if there are none.
    fn counters(&mut self, key: Key, table: &Table<C>, now: Micros) -> &mut [C] {
        let hash = table.hasher.hash_one(key);
        let bucket = self.clients.find_bucket_index(hash, |(known, _)| *known == key);
        let bucket = bucket.unwrap_or_else(|| {
            self.forget(&table.quotas, now, table.max_keys);
            let client = (key, table.quotas.iter().map(|_| C::default()).collect());
            let rehash = |(key, _): &(Key, _)| table.hasher.hash_one(key);
            self.clients.insert_unique(hash, client, rehash).bucket_index()
        });
        // Cannot fail: it was found or made just now.
        &mut self.clients.get_bucket_mut(bucket).expect("a client in its bucket").1
    }

    // ANCHOR: forget
    /// Makes room for one more.
    ///
    /// When the table would have to grow, this forgets all clients whose quota is whole again. As many new clients came
    /// before each such sweep, so it costs each of them little. At the bound it forgets one: of the next few clients,
    /// the one nearest to whole. While there is room it forgets nobody, because forgetting clients that come back in a
    /// moment costs more than it saves. No task sweeps: while no client comes, nothing grows.
    fn forget(&mut self, quotas: &[Quota], now: Micros, max: usize) {
        let whole = |counters: &mut [C]| {
            let whole = counters.iter_mut().zip(quotas).map(|(counter, quota)| {
                counter.advance(quota, now);
                counter.whole(quota, now)
            });
            whole.max().unwrap_or(0)
        };
        if self.clients.len() == self.clients.capacity() {
            self.clients.retain(|(_, counters)| whole(counters) > 0);
        }
        if self.clients.len() < max {
            return;
        }
        let (mut seen, mut nearest): (_, Option<(Micros, usize)>) = (0, None);
        for _ in 0..self.clients.num_buckets() {
            self.hand = (self.hand + 1) % self.clients.num_buckets();
            let Some((_, counters)) = self.clients.get_bucket_mut(self.hand) else { continue };
            let whole = whole(counters);
            if nearest.is_none_or(|(least, _)| whole < least) {
                nearest = Some((whole, self.hand));
            }
            seen += 1;
            if seen == SAMPLE {
                break;
            }
        }
        if let Some((_, bucket)) = nearest
            && let Ok(client) = self.clients.get_bucket_entry(bucket)
        {
            client.remove();
        }
    }
    // ANCHOR_END: forget
}

#[cfg(test)]
mod tests;
