//! How is the service put together, started and stopped, and what does it do when nobody asks?

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use ipnet::IpNet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    access::{FORGET_EVERY, Limit},
    cache::HotLinks,
    clicks::Clicks,
    code::Codes,
    create::Creator,
    error::Error,
    long_url::Ourselves,
    ring::Shards,
    store::Store,
};

const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// For this long an expired link answers 410. When its row is gone, it is 404.
pub const KEPT: Duration = Duration::from_hours(1);
/// Links, or rows of clicks, that are deleted in one statement. Few, so that it holds its locks only for milliseconds.
const BATCH: u32 = 1_000;

/// What can be chosen.
pub struct Config {
    /// How codes are made.
    pub codes: Codes,
    /// Where the service is reached.
    pub ourselves: Ourselves,
    /// How many links a client may make in a second; twice as many at once.
    pub creates_per_second: NonZeroU32,
    /// Load balancers that tell us the client's address.
    pub trusted_proxies: Vec<IpNet>,
}

/// What the handlers share.
pub struct Service {
    pub(crate) shards: Arc<Shards>,
    pub(crate) creator: Creator,
    pub(crate) hot: HotLinks,
    pub(crate) clicks: Clicks,
    pub(crate) limit: Limit,
    pub(crate) ourselves: Ourselves,
}

/// The running service.
pub struct App {
    service: Arc<Service>,
    /// All that runs in the background.
    tasks: TaskTracker,
    /// Tells it to stop, also when the app is only dropped.
    running: DropGuard,
}

impl App {
    /// Starts what runs in the background, on databases whose ring was checked. Must be called within a tokio runtime.
    pub fn start(shards: Shards, config: Config) -> Self {
        let shards = Arc::new(shards);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (clicks, writers) = Clicks::new(shards.all());
        for writer in writers {
            tasks.spawn(writer.run(stop.clone()));
        }
        // A task for each shard: one that is away holds up no other.
        for store in shards.all() {
            let (sweeps, stop) = (sweep_for_ever(store.clone()), stop.clone());
            tasks.spawn(async move { stop.run_until_cancelled(sweeps).await });
        }
        let service = Arc::new(Service {
            creator: Creator::start(Arc::clone(&shards), config.codes, &tasks, &stop),
            hot: HotLinks::new(Arc::clone(&shards)),
            shards,
            clicks,
            limit: Limit::new(config.creates_per_second, config.trusted_proxies),
            ourselves: config.ourselves,
        });
        let (forgetting, stopping) = (Arc::clone(&service), stop.clone());
        tasks.spawn(async move {
            let mut ticks = interval(FORGET_EVERY);
            while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
                forgetting.limit.forget_rested();
            }
        });
        tasks.close();
        Self { service, tasks, running: stop.drop_guard() }
    }

    /// What the handlers share.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Writes the clicks that were counted, and ends what runs in the background. To be called when no
    /// request is in flight any more; takes some seconds at most.
    pub async fn stop(self) {
        drop(self.running);
        self.tasks.wait().await;
    }
}

async fn sweep_for_ever(store: Store) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = sweep(&store).await {
            tracing::warn!(%error, "expired links stay for now");
        }
    }
}

// ANCHOR: sweep
/// Deletes the links that expired long ago, and then the clicks of all links that are gone, both in pieces. Nothing
/// depends on when it runs: reading decides by itself whether a link has expired.
async fn sweep(store: &Store) -> Result<(), Error> {
    while store.sweep_links(KEPT, BATCH).await? == u64::from(BATCH) {}
    while store.sweep_clicks(BATCH).await? == u64::from(BATCH) {}
    Ok(())
}
// ANCHOR_END: sweep
