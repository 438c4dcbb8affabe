//! What has to be done now and then, whether or not anybody asks?

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{keyring::Keyring, store::Store};

/// Nothing depends on when what has ended is deleted: each reader sees for itself that it has.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// Loads the keys at once and then so often, until it is told to stop. Where the source is our own database, this is
/// also what rotates them.
pub async fn load_keys(keyring: Arc<Keyring>, every: Duration, stop: CancellationToken) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A load that is cut off here was all or nothing.
        match stop.run_until_cancelled(keyring.load()).await {
            None => return,
            Some(Ok(())) => tracing::debug!("keys loaded"),
            Some(Err(error)) => tracing::warn!(%error, "the keys stay as they are for now"),
        }
    }
}

/// Deletes what has ended, until it is told to stop. What a minute brings may be more than one sweep takes: then it goes
/// on at once, or the tables would grow for ever.
pub async fn sweep(store: Arc<Store>, stop: CancellationToken) {
    // Not at once: a start has better things to do.
    let mut ticks = interval_at(Instant::now() + SWEEP_EVERY, SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        loop {
            match stop.run_until_cancelled(store.sweep()).await {
                None => return,
                Some(Ok(true)) => {}
                Some(Ok(false)) => break,
                Some(Err(error)) => {
                    tracing::warn!(%error, "what has ended stays for now");
                    break;
                }
            }
        }
    }
}
