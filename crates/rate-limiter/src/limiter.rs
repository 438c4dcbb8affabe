//! Who decides, and what happens when the store is away?

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use clap::ValueEnum;

use crate::{
    algorithm::Limits,
    client::Key,
    error::Error,
    lease::Leases,
    memory::{Clock, Memory},
    quota::Decision,
    shared::Shared,
};

/// What to do when the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhenAway {
    /// Go on, with the same quota counted in this process alone
    #[default]
    FailOpen,
    /// Refuse with 503
    FailClosed,
}

impl WhenAway {
    /// Its name on the command line and in the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailOpen => "fail-open",
            Self::FailClosed => "fail-closed",
        }
    }
}

/// Where the counters are.
#[expect(clippy::large_enum_variant, reason = "a process has one of them")]
pub enum Store {
    /// In this process.
    Memory(Memory),
    /// In Redis, for all processes together.
    Redis {
        /// The scripts, and the connection.
        shared: Shared,
        /// What Redis has said.
        leases: Leases,
        /// Counts in this process while Redis is away. Without it nobody gets in then.
        fallback: Option<Memory>,
    },
}

impl Store {
    /// In this Redis. A process takes `lease` units at once; 1 is exact. It remembers `max_keys` clients at most: of what
    /// Redis said, and while Redis is away. What is decided in Redis is decided by its clock; `clock` says how long ago
    /// it was.
    pub fn redis(
        limits: &Limits,
        shared: Shared,
        when_away: WhenAway,
        (lease, max_keys): (u64, usize),
        clock: &Clock,
    ) -> Self {
        let fallback = || Memory::new(limits, max_keys, Arc::clone(clock));
        let fallback = (when_away == WhenAway::FailOpen).then(fallback);
        let leases = Leases::new(lease, max_keys, Arc::clone(clock));
        Self::Redis { shared, leases, fallback }
    }
}

/// What happened so far. Each request is counted in one of the first three, so they add up.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that passed.
    pub allowed: AtomicU64,
    /// Requests that were over a quota.
    pub refused: AtomicU64,
    /// Requests that got no decision, because the store was away.
    pub undecided: AtomicU64,
    /// Requests for which the store was away: decided by this process alone, or not at all.
    pub store_away: AtomicU64,
}

/// Limits, and where they are counted.
pub struct Limiter {
    limits: Limits,
    store: Store,
    /// What happened so far.
    pub counts: Counts,
    /// Whether the store did not answer the last time.
    away: AtomicBool,
}

impl Limiter {
    /// Counts nothing yet.
    pub fn new(limits: Limits, store: Store) -> Self {
        Self { limits, store, counts: Counts::default(), away: AtomicBool::new(false) }
    }

    /// The limits that it holds clients to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the store answers. A process alone has nothing that could be away.
    pub async fn ping(&self) -> Result<(), Error> {
        match &self.store {
            Store::Memory(_) => Ok(()),
            Store::Redis { shared, .. } => shared.ping().await.map_err(|_| Error::StoreAway),
        }
    }

    /// What it does while the store is away, if it has one that can be.
    pub fn when_away(&self) -> Option<WhenAway> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Redis { fallback: Some(_), .. } => Some(WhenAway::FailOpen),
            Store::Redis { fallback: None, .. } => Some(WhenAway::FailClosed),
        }
    }

    // ANCHOR: decide
    /// Decides, and takes `cost` units if every policy has that many; a cost above a limit counts as the limit,
    /// or it could never pass. The error is [`Error::StoreAway`], and only with [`WhenAway::FailClosed`].
    pub async fn decide(&self, key: Key, cost: u64) -> Result<Decision, Error> {
        let decision = match &self.store {
            Store::Memory(memory) => Ok(memory.decide(key, cost)),
            Store::Redis { shared, leases, fallback } => {
                match leases.decide(shared, &self.limits, key, cost).await {
                    Ok(decision) => {
                        self.is_back();
                        Ok(decision)
                    }
                    Err(error) => {
                        self.is_away(&error);
                        // Not "let everybody in": each process still holds everyone to the quota by itself.
                        fallback.as_ref().map(|it| it.decide(key, cost)).ok_or(Error::StoreAway)
                    }
                }
            }
        };
        let counter = match &decision {
            Ok(Decision { allowed: true, .. }) => &self.counts.allowed,
            Ok(_) => &self.counts.refused,
            Err(_) => &self.counts.undecided,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        decision
    }
    // ANCHOR_END: decide

    /// Logs one line when the store goes, and one when it comes back, not one for each request. The lines say nothing
    /// about any request.
    fn is_away(&self, error: &redis::RedisError) {
        self.counts.store_away.fetch_add(1, Ordering::Relaxed);
        if !self.away.swap(true, Ordering::Relaxed) {
            let mode = self.when_away().map_or("", WhenAway::name);
            tracing::warn!(mode, %error, "the store is away");
        }
    }

    fn is_back(&self) {
        // Read first: a write for each request would pass the cache line from core to core.
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("the store is back");
        }
    }
}
