//! Act one, accept. When is a notification accepted? When it is recorded, and the broker has confirmed that it has it.
//!
//! A crash can fall anywhere between the two. Before the record: nothing happened. After it, or after the confirm: the
//! client heard no answer and asks again with the same `job_id`, and the job is published again. A second message finds
//! nothing left to do.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{broker::Broker, error::Error, notification::NewNotification, store::Store};

/// A retry may come later by this.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
const SWEEP_BATCH: i64 = 200;
/// Old jobs that are deleted in each sweep: up to 5,000 a second. Retries do not wait for more.
const FORGET_BATCH: i64 = 500;

// ANCHOR: accept
/// Records, publishes, and returns only when the broker has confirmed; whether the job is new.
pub async fn accept(store: &Store, broker: &Broker, new: &NewNotification) -> Result<bool, Error> {
    // Before the record: while the broker is away there is nothing to take back.
    broker.ready()?;
    let (is_new, has_begun) = store.record(new).await?.ok_or(Error::AnotherUsers)?;
    if has_begun {
        return Ok(false);
    }
    // If it is known and has not begun, another call is just accepting it, or died half-way. Twice in the queue does no
    // harm; a promise that the broker has not made would.
    match broker.publish(&new.message()).await {
        Ok(()) => Ok(is_new),
        // Nothing was accepted, and nothing is left of it.
        Err(error) if is_new && store.withdraw(&new.job_id).await? => Err(error),
        // Only the confirm was lost, and a worker has it; or another call has recorded it too, and may still be confirmed.
        Err(_) => Err(Error::Away("the broker did not confirm it; it may be sent all the same")),
    }
}
// ANCHOR_END: accept

// ANCHOR: sweep
/// Publishes what is due and what the broker has lost, and deletes what is old, until it is told to stop.
pub async fn sweep(store: Store, broker: Arc<Broker>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(SWEEP_EVERY)).await.is_some() {
        if let Err(error) = sweep_once(&store, &broker).await {
            tracing::debug!(%error, "the sweep will come again");
        }
    }
}

async fn sweep_once(store: &Store, broker: &Broker) -> Result<(), Error> {
    if broker.ready().is_ok() {
        for message in store.take_due(SWEEP_BATCH).await? {
            // Its shard may have no room. The next may be on another.
            let published = broker.publish(&message).await;
            tracing::debug!(?message, ?published, "it was due");
        }
    }
    store.forget(FORGET_BATCH).await?;
    Ok(())
}
// ANCHOR_END: sweep
