//! Who tidies up after expired links?
//!
//! Reading decides on its own whether a link has expired, so nothing depends on when this runs.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{error::Error, shards::Shards, store::Store};

const EVERY: Duration = Duration::from_secs(10);
/// So long an expired link answers 410; when its row is gone, 404.
pub const KEPT: Duration = Duration::from_hours(1);
/// Links deleted in one statement: few, so that it holds its locks for milliseconds only.
const BATCH: u32 = 500;

/// Sweeps until it is told to stop.
pub async fn run(shards: Arc<Shards>, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for store in shards.all() {
            // A statement that is cut off here was all or nothing.
            match stop.run_until_cancelled(sweep(store, KEPT)).await {
                None => return,
                Some(Ok(swept)) => tracing::debug!(swept, "expired links deleted"),
                Some(Err(error)) => tracing::warn!(%error, "expired links stay for now"),
            }
        }
    }
}

// ANCHOR: sweep
/// Deletes the links that expired longer than this ago, with their clicks; how many there were.
pub async fn sweep(store: &Store, kept: Duration) -> Result<u64, Error> {
    let mut all = 0;
    loop {
        let swept = store.sweep(kept, BATCH).await?;
        all += swept;
        if swept < u64::from(BATCH) {
            return Ok(all);
        }
    }
}
// ANCHOR_END: sweep
