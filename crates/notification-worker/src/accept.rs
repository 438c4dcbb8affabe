//! When is a notification accepted? When it is recorded, and the broker has confirmed that it holds it.
//!
//! A crash can fall anywhere between the two. Before the record: nothing happened. After it: the sweep
//! publishes what no confirm is known for. After the confirm: the sweep may publish it again, and the second
//! message finds nothing left to do. The client, which heard no answer, asks again with the same `job_id`.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, mpsc},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Broker,
    error::Error,
    ids::UserId,
    notification::NewNotification,
    store::{self, Store},
};

/// Confirms that wait to be written down. When it is full they are not: the sweep then publishes a job once
/// more than needed, which a worker notices.
const CONFIRMS: usize = 4_096;
/// Two of so many users seldom wait for each other.
const TURNS: usize = 1_024;
/// Confirms in one statement.
const BATCH: usize = 500;
/// How long confirms are gathered for one statement.
const GATHER: Duration = Duration::from_millis(50);
/// What is younger may still be on its way. More than a call may take.
const SWEEP_AFTER: Duration = Duration::from_secs(10);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_BATCH: i64 = 200;
/// How often what is old is deleted.
const FORGET_EVERY: u32 = 60;
/// Streams can be read again for so many days.
const KEPT_DAYS: i32 = 7;

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A new job.
    New,
    /// A job that was accepted before.
    Known,
}

/// Accepts notifications.
pub struct Acceptor {
    store: Store,
    broker: Arc<Broker>,
    confirms: mpsc::Sender<String>,
    turns: Vec<Mutex<()>>,
}

impl Acceptor {
    /// And what writes down the confirms.
    pub fn new(store: Store, broker: Arc<Broker>) -> (Self, mpsc::Receiver<String>) {
        let (confirms, receiver) = mpsc::channel(CONFIRMS);
        let turns = std::iter::repeat_with(Mutex::default).take(TURNS).collect();
        (Self { store, broker, confirms, turns }, receiver)
    }

    // ANCHOR: accept
    /// Records, publishes, and returns only when the broker has confirmed.
    pub async fn accept(&self, new: &NewNotification) -> Result<Accepted, Error> {
        // Before the record: while the broker is away there is none to take back.
        self.broker.ping()?;
        let (is_new, message, confirm) = {
            // A user's jobs are published in the order of their numbers. Two processes may still cross; then
            // the calls were under way side by side, and neither is the first.
            let turn = timeout(store::TIMEOUT, self.turn(&new.user_id).lock()).await;
            let _turn = turn.map_err(|_| Error::DatabaseAway)?;
            let is_new = self.store.record(new).await?;
            let known = if is_new { None } else { self.store.known(&new.job_id).await? };
            let message = match known {
                Some((true, ..)) => return Ok(Accepted::Known),
                // Somebody else is just accepting it, or died over it. Twice in the queue does no harm; a
                // promise that the broker has not made would.
                Some((false, message, _)) => message,
                None => new.message(),
            };
            let confirm = self.broker.hand_over(&message, new.priority).await;
            (is_new, message, confirm)
        };
        let published = match confirm {
            Ok(confirm) => Broker::confirmed(confirm).await,
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            // Nothing was accepted, so nothing may be sent: unless a worker has it already, because only the
            // confirm was lost.
            if !is_new || self.store.withdraw(&new.job_id).await? {
                return Err(error);
            }
        }
        if !is_new {
            // Not in a batch: the call that recorded it may be about to take it back, and then this one has
            // nothing to promise. What is marked as confirmed is not taken back.
            self.store.confirm(std::slice::from_ref(&message.job_id)).await?;
            self.store.known(&new.job_id).await?.ok_or(Error::BrokerAway)?;
            return Ok(Accepted::Known);
        }
        let _ = self.confirms.try_send(message.job_id);
        Ok(Accepted::New)
    }

    /// Users share a few locks: one for each would have to be thrown away again.
    fn turn(&self, user: &UserId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        &self.turns[usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0)]
    }
    // ANCHOR_END: accept
}

/// Writes down what the broker has confirmed, in batches: losing some of it costs a message, not a promise.
pub async fn write_confirms(
    store: Store,
    mut confirms: mpsc::Receiver<String>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(1..) = stop.run_until_cancelled(confirms.recv_many(&mut batch, BATCH)).await {
        if let Err(error) = store.confirm(&batch).await {
            tracing::debug!(%error, "confirms were not written");
        }
        batch.clear();
        stop.run_until_cancelled(sleep(GATHER)).await;
    }
    confirms.close();
    while confirms.recv_many(&mut batch, CONFIRMS).await > 0 {}
    if let Err(error) = store.confirm(&batch).await {
        tracing::debug!(%error, "the last confirms were not written");
    }
}

// ANCHOR: sweep
/// Publishes what a crash has left between the database and the broker, and deletes what is old.
pub async fn sweep(store: Store, broker: Arc<Broker>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round = 0_u32;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        round = round.wrapping_add(1);
        if let Err(error) = publish_left(&store, &broker).await {
            tracing::debug!(%error, "the sweep will come again");
        }
        if round % FORGET_EVERY == 1 {
            match store.forget(KEPT_DAYS, 1_000).await {
                Ok(forgotten) => tracing::debug!(forgotten, "deleted what is old"),
                Err(error) => tracing::debug!(%error, "what is old stays for now"),
            }
        }
    }
}

async fn publish_left(store: &Store, broker: &Broker) -> Result<(), Error> {
    let left = store.unconfirmed(SWEEP_AFTER.as_secs_f64(), SWEEP_BATCH).await?;
    let mut published = Vec::new();
    for (message, priority) in left {
        let sent = broker.publish(&message, priority).await;
        match sent {
            Ok(()) => published.push(message.job_id),
            // Its shard has no room. The next may be on another.
            Err(Error::BrokerFull) => {}
            // What was published is written down all the same, or it would be published every second.
            Err(error) => {
                tracing::debug!(%error, "the sweep will come again");
                break;
            }
        }
    }
    if !published.is_empty() {
        tracing::info!(jobs = published.len(), "published what had no confirm");
        store.confirm(&published).await?;
    }
    Ok(())
}
// ANCHOR_END: sweep
