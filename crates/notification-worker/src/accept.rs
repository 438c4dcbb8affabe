//! Act one, accept. When is a notification accepted? When it is recorded, and the broker has confirmed that it has it.
//!
//! A crash can fall anywhere between the two. Before the record: nothing happened. After it: the sweep publishes what no
//! confirm is known for. After the confirm: the sweep may publish it again, and the second message finds nothing left
//! to do. The client, which heard no answer, asks again with the same `job_id`.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Broker,
    error::Error,
    notification::{JobId, NewNotification},
    store::Store,
};

/// Confirms that wait to be written down. When it is full they are not: the sweep then publishes a job once more than
/// needed, which a worker notices.
const CONFIRMS: usize = 4_096;
/// Confirms in one statement.
const BATCH: usize = 500;
/// How long confirms are gathered for one statement.
const GATHER: Duration = Duration::from_millis(50);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_BATCH: i64 = 200;
/// How often old jobs are deleted: all of them, so many in one statement.
const FORGET_EVERY: Duration = Duration::from_mins(1);
const FORGET_BATCH: u16 = 500;
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
    confirms: mpsc::Sender<JobId>,
}

impl Acceptor {
    /// And what [`write_confirms`] writes down.
    pub fn new(store: Store, broker: Arc<Broker>) -> (Self, mpsc::Receiver<JobId>) {
        let (confirms, receiver) = mpsc::channel(CONFIRMS);
        (Self { store, broker, confirms }, receiver)
    }

    // ANCHOR: accept
    /// Records, publishes, and returns only when the broker has confirmed.
    pub async fn accept(&self, new: &NewNotification) -> Result<Accepted, Error> {
        // Before the record: while the broker is away there is nothing to take back.
        self.broker.ready()?;
        let message = match self.store.record(new).await? {
            None => new.message(),
            Some(known) if known.message.user_id != new.user_id => return Err(Error::OtherUser),
            Some(known) if known.confirmed => return Ok(Accepted::Known),
            // Another call is just accepting it, or died half-way. Twice in the queue does no harm; a promise that the
            // broker has not made would.
            Some(known) => {
                self.broker.publish(&known.message, new.priority).await?;
                // Written at once: the other call may be about to take it back, and does so only before this.
                self.store.confirm(std::slice::from_ref(&new.job_id)).await?;
                self.store.known(&new.job_id).await?.ok_or(Error::BrokerAway)?;
                return Ok(Accepted::Known);
            }
        };
        if let Err(error) = self.broker.publish(&message, new.priority).await {
            // Nothing was accepted, so nothing may be sent; unless a worker has it already, because only the confirm
            // was lost.
            if self.store.withdraw(&new.job_id).await? {
                return Err(error);
            }
        }
        let _ = self.confirms.try_send(message.job_id);
        Ok(Accepted::New)
    }
    // ANCHOR_END: accept
}

/// Writes down what the broker has confirmed, in batches: losing some of it costs a message, not a promise.
pub async fn write_confirms(
    store: Store,
    mut confirms: mpsc::Receiver<JobId>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let gathered = stop.run_until_cancelled(confirms.recv_many(&mut batch, BATCH)).await;
        // When it is told to stop, it still writes what was sent before.
        if gathered.is_none() {
            confirms.close();
            confirms.recv_many(&mut batch, BATCH).await;
        }
        if batch.is_empty() {
            return;
        }
        if let Err(error) = store.confirm(&batch).await {
            tracing::debug!(%error, "confirms were not written");
        }
        batch.clear();
        stop.run_until_cancelled(sleep(GATHER)).await;
    }
}

// ANCHOR: sweep
/// Publishes what a crash has left between the database and the broker, and what the broker has lost.
pub async fn sweep(store: Store, broker: Arc<Broker>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = publish_overdue(&store, &broker).await {
            tracing::debug!(%error, "the sweep will come again");
        }
    }
}

async fn publish_overdue(store: &Store, broker: &Broker) -> Result<(), Error> {
    broker.ready()?;
    let mut published = Vec::new();
    for (message, priority) in store.take_overdue(SWEEP_BATCH).await? {
        match broker.publish(&message, priority).await {
            Ok(()) => published.push(message.job_id),
            // Its shard has no room. The next may be on another.
            Err(Error::BrokerFull) => {}
            Err(error) => {
                tracing::debug!(%error, "the sweep will come again");
                break;
            }
        }
    }
    if !published.is_empty() {
        tracing::info!(jobs = published.len(), "published what nobody had heard of");
        store.confirm(&published).await?;
    }
    Ok(())
}
// ANCHOR_END: sweep

/// Deletes what is old, as fast as it comes in.
pub async fn forget(store: Store, stop: CancellationToken) {
    let mut ticks = interval(FORGET_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        while !stop.is_cancelled() {
            match store.forget(KEPT_DAYS, FORGET_BATCH.into()).await {
                Ok(forgotten) if forgotten < FORGET_BATCH.into() => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "old jobs stay for now");
                    break;
                }
            }
        }
    }
}
