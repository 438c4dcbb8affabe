//! Act one, accept. When is a notification accepted? When it is recorded, and the broker has confirmed that it has it.
//!
//! A crash can fall anywhere between the two. Before the record: nothing happened. After it, or after the confirm: the
//! client heard no answer and asks again with the same `job_id`, and the job is published again. A second message finds
//! nothing left to do.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{broker::Broker, error::Error, notification::NewNotification, store::Store};

const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_BATCH: i64 = 200;
/// Old jobs that are deleted by one statement. There are as many statements as it takes.
const FORGET_BATCH: i64 = 500;
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

// ANCHOR: accept
/// Records, publishes, and returns only when the broker has confirmed.
pub async fn accept(
    store: &Store,
    broker: &Broker,
    new: &NewNotification,
) -> Result<Accepted, Error> {
    // Before the record: while the broker is away there is nothing to take back.
    broker.ready()?;
    let is_new = store.record(new).await?;
    if !is_new {
        let known = store.promise(&new.job_id).await?;
        let (user, has_begun) = known.ok_or(Error::Away("another call took this job back"))?;
        if user != new.user_id {
            return Err(Error::Conflict("this job_id is another user's; nothing was accepted"));
        }
        if has_begun {
            return Ok(Accepted::Known);
        }
        // Another call is just accepting it, or died half-way. Twice in the queue does no harm; a promise that the
        // broker has not made would.
    }
    match (broker.publish(&new.message(), new.priority).await, is_new) {
        (Ok(()), true) => Ok(Accepted::New),
        (Ok(()), false) => Ok(Accepted::Known),
        // Nothing was accepted, so nothing may be sent: unless a worker has it already, because only the confirm was
        // lost, or another call was told that it is accepted.
        (Err(_), true) if !store.withdraw(&new.job_id).await? => Ok(Accepted::New),
        (Err(error), _) => Err(error),
    }
}
// ANCHOR_END: accept

// ANCHOR: sweep
/// Publishes what the broker has lost, and deletes what is old, until it is told to stop.
pub async fn sweep(store: Store, broker: Arc<Broker>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = sweep_once(&store, &broker, &stop).await {
            tracing::debug!(%error, "the sweep will come again");
        }
    }
}

async fn sweep_once(store: &Store, broker: &Broker, stop: &CancellationToken) -> Result<(), Error> {
    let overdue = match broker.ready() {
        Ok(_) => store.take_overdue(SWEEP_BATCH).await?,
        Err(_) => Vec::new(),
    };
    for (message, priority) in overdue {
        // Its shard may have no room. The next may be on another.
        let published = broker.publish(&message, priority).await;
        tracing::info!(job = %message.job_id, ?published, "nobody had heard of it");
    }
    while !stop.is_cancelled() && store.forget(KEPT_DAYS, FORGET_BATCH).await? > 0 {}
    Ok(())
}
// ANCHOR_END: sweep
