//! How are clicks counted without making anybody wait?
//!
//! A redirect puts its click into a queue and goes on. One task empties the queue twice a second and adds up
//! what it finds, so that a link clicked a thousand times costs one row. No IP address is kept.
//!
//! Clicks are statistics: a crash loses those of the last second; a batch whose answer got lost on the way
//! is written again, and counted twice.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::HotLink,
    error::Error,
    referrer::Referrer,
    shards::Shards,
    store::{Store, Visit},
};

/// How often the queue is emptied: a click is written at most a second after it was made, unless the
/// database is slow.
const EVERY: Duration = Duration::from_millis(500);
/// Clicks that wait for that: 130,000 a second. When it is full, clicks are dropped and counted.
const QUEUE: usize = 65_536;
/// Rows that wait for a database that is away. When there are more, the queue is left to fill up.
const PENDING: usize = 50_000;
/// Clicks that are taken out of the queue at a time.
const CHUNK: usize = 1_024;
/// Rows in one statement: one that is too long would time out, again and again.
const BATCH: usize = 1_000;
/// On a clean stop, how long we wait for a database that is away.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The near end of the queue.
pub struct Clicks {
    queue: mpsc::Sender<(Arc<HotLink>, Referrer)>,
    dropped: Arc<AtomicU64>,
}

/// The far end of the queue, and what came out of it.
pub struct Writer {
    queue: mpsc::Receiver<(Arc<HotLink>, Referrer)>,
    dropped: Arc<AtomicU64>,
    /// How many of them were told to the log.
    reported: u64,
    shards: Arc<Shards>,
    /// One for each shard.
    pending: Vec<BTreeMap<Visit, i64>>,
}

/// A queue, empty as yet.
pub fn queue(shards: Arc<Shards>) -> (Clicks, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let pending = vec![BTreeMap::new(); shards.all().len()];
    (
        Clicks { queue: sender, dropped: Arc::clone(&dropped) },
        Writer { queue: receiver, dropped, reported: 0, shards, pending },
    )
}

impl Clicks {
    // ANCHOR: click_queue
    /// Counts a click, or drops it if the queue is full. Never waits.
    pub fn record(&self, link: Arc<HotLink>, referrer: Referrer) {
        if self.queue.try_send((link, referrer)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
    // ANCHOR_END: click_queue

    /// How many were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Writes until it is told to stop, and then all that is left.
    pub async fn run(mut self, stop: CancellationToken) {
        // Not woken by each click: that would cost the redirects more than the click itself.
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.collect().await;
            self.write().await;
        }
        self.queue.close();
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            self.collect().await;
            self.write().await;
            if self.queue.is_empty() && self.pending() == 0 {
                return;
            }
            if Instant::now() >= deadline {
                tracing::error!(links = self.pending(), "stopped with clicks unwritten");
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn pending(&self) -> usize {
        self.pending.iter().map(BTreeMap::len).sum()
    }

    /// Adds up what is in the queue, unless too much waits already.
    async fn collect(&mut self) {
        if self.pending() >= PENDING {
            return;
        }
        let day = OffsetDateTime::now_utc().date();
        let mut clicks = Vec::with_capacity(CHUNK);
        let mut sums: BTreeMap<Visit, i64> = BTreeMap::new();
        // No more than fit in: as fast as they come, there must be an end. Between chunks others may run.
        for _ in 0..QUEUE / CHUNK {
            if self.queue.is_empty() {
                break;
            }
            self.queue.recv_many(&mut clicks, CHUNK).await;
            for (link, referrer) in clicks.drain(..) {
                *sums.entry(Visit { code: link.code.clone(), day, referrer }).or_default() += 1;
            }
        }
        for (visit, clicks) in sums {
            let shard = self.shards.number_of(&visit.code);
            *self.pending[shard].entry(visit).or_default() += clicks;
        }
    }

    /// Writes to all shards at once. What cannot be written now stays.
    async fn write(&mut self) {
        let shards = self.shards.all().iter().zip(&mut self.pending);
        let lost: i64 =
            join_all(shards.map(|(store, pending)| write(store, pending))).await.iter().sum();
        self.dropped.fetch_add(lost.unsigned_abs(), Ordering::Relaxed);
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.reported {
            tracing::warn!(dropped, "clicks were dropped since the start");
            self.reported = dropped;
        }
    }
}

/// Returns the number of clicks that were lost: those that the database has refused, and would refuse again.
async fn write(store: &Store, pending: &mut BTreeMap<Visit, i64>) -> i64 {
    let mut lost = 0;
    while !pending.is_empty() {
        let batch: Vec<_> = pending.iter().take(BATCH).collect();
        let rows = batch.len();
        match store.add_clicks(&batch).await {
            Ok(()) => {}
            Err(Error::DatabaseAway) => {
                tracing::warn!(rows = pending.len(), "clicks wait for a database that is away");
                break;
            }
            Err(error) => {
                tracing::error!(%error, ?error, rows, "clicks could not be written");
                lost += batch.iter().map(|(_, clicks)| **clicks).sum::<i64>();
            }
        }
        for _ in 0..rows {
            pending.pop_first();
        }
    }
    lost
}
