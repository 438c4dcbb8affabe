//! Who decides, and what happens when the store is away?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::ValueEnum;

use crate::{
    client::Key,
    error::Error,
    lease::Leases,
    memory::{Clock, Memory, monotonic},
    quota::{Decision, Limits},
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
#[derive(Clone)]
pub enum Store {
    /// In this process.
    Memory {
        /// Clients to remember at most.
        max_keys: usize,
        /// What time it is.
        clock: Clock,
    },
    /// In Redis, for all processes together.
    Redis {
        /// The connection to it.
        shared: Arc<Shared>,
        /// What to do when it does not answer.
        when_away: WhenAway,
        /// Clients to remember at most: while it is away, and of what it said.
        max_keys: usize,
        /// Units that the process takes at once; 1 for exact decisions. See [`Leases`].
        lease: u64,
        /// How long ago something was. What is decided in Redis is decided by its clock and no other.
        clock: Clock,
    },
}

impl Store {
    /// In this process, with at most so many clients.
    pub fn memory(max_keys: usize) -> Self {
        Self::Memory { max_keys, clock: monotonic() }
    }

    /// In this Redis.
    pub fn redis(shared: Shared, when_away: WhenAway, max_keys: usize, lease: u64) -> Self {
        Self::Redis { shared: Arc::new(shared), when_away, max_keys, lease, clock: monotonic() }
    }
}

/// What happened so far. A request is one of the first three, so they add up.
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
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    place: Place,
    /// What happened so far.
    pub counts: Counts,
    /// Whether the store did not answer the last time.
    away: AtomicBool,
}

#[derive(Debug)]
enum Place {
    Here(Memory),
    There { shared: Arc<Shared>, leases: Leases, floor: Option<Memory> },
}

impl Limiter {
    /// Counts nothing yet.
    pub fn new(limits: Limits, store: &Store) -> Self {
        let place = match store {
            Store::Memory { max_keys, clock } => {
                Place::Here(Memory::new(&limits, *max_keys, Arc::clone(clock)))
            }
            Store::Redis { shared, when_away, max_keys, lease, clock } => {
                let floor = || Memory::new(&limits, *max_keys, Arc::clone(clock));
                let floor = (*when_away == WhenAway::FailOpen).then(floor);
                let leases = Leases::new(*lease, *max_keys, Arc::clone(clock));
                Place::There { shared: Arc::clone(shared), leases, floor }
            }
        };
        Self { limits, place, counts: Counts::default(), away: AtomicBool::new(false) }
    }

    /// What it limits by.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the store answers. A process alone has nothing that could be away.
    pub async fn ping(&self) -> Result<(), Error> {
        match &self.place {
            Place::Here(_) => Ok(()),
            Place::There { shared, .. } => shared.ping().await.map_err(|_| Error::StoreAway),
        }
    }

    /// What it does while the store is away, if it has one that can be.
    pub fn when_away(&self) -> Option<WhenAway> {
        match &self.place {
            Place::Here(_) => None,
            Place::There { floor: Some(_), .. } => Some(WhenAway::FailOpen),
            Place::There { floor: None, .. } => Some(WhenAway::FailClosed),
        }
    }

    // ANCHOR: decide
    /// Decides, and takes `cost` units if every policy has that many; a cost above a limit counts as the limit,
    /// or it could never pass. The error is [`Error::StoreAway`], and only with [`WhenAway::FailClosed`].
    pub async fn decide(&self, key: Key, cost: u64) -> Result<Decision, Error> {
        let decision = match &self.place {
            Place::Here(memory) => Ok(memory.decide(key, cost)),
            Place::There { shared, leases, floor } => {
                match leases.decide(shared, &self.limits, key, cost).await {
                    Ok(decision) => {
                        self.is_back();
                        Ok(decision)
                    }
                    Err(error) => {
                        self.is_away(&error);
                        // Not "let everybody in": each process still holds everyone to the quota by itself.
                        floor.as_ref().map(|floor| floor.decide(key, cost)).ok_or(Error::StoreAway)
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

    /// One line when it goes and one when it comes back, not one for each request; nothing of any request in it.
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

/// How long a Redis may take to answer before it counts as away. A request waits that long in the worst case.
pub const STORE_TIMEOUT: Duration = Duration::from_millis(500);
