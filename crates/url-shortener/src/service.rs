//! How is the service put together, started and stopped, and what does it do when nobody asks?

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use edge::client_address::TrustedProxy;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::Url;

use crate::{
    access::Limit, cache::HotLinks, clicks::Clicks, code::Codes, create::Creator, error::Error,
    long_url::Ourselves, ring::Shards, store::Store,
};

const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// For this long an expired link answers 410. When its row is gone, it is 404.
pub const KEPT: Duration = Duration::from_hours(1);
/// Links, or rows of clicks, that are deleted in one statement. Few, so that it holds its locks only for milliseconds.
const BATCH: u32 = 1_000;

/// What can be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Config {
    /// How codes are made
    #[arg(long, value_enum, default_value_t)]
    pub codes: Codes,
    /// Links that one client may create in a second; twice as many at once
    #[arg(long, default_value = "100")]
    pub creates_per_second: NonZeroU32,
    /// A load balancer, or a network of them, whose `X-Forwarded-For` tells the client's address
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Where clients reach the service, if not where it listens
    #[arg(long, value_name = "URL")]
    pub public_url: Option<Url>,
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
    pub fn start(shards: Shards, listens: Url, config: Config) -> Self {
        let shards = Arc::new(shards);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let clicks = Clicks::new(shards.all().len());
        // Tasks for each shard: one that is away holds up no other.
        for (number, store) in shards.all().iter().enumerate() {
            tasks.spawn(clicks.writer(number, store.clone()).run(stop.clone()));
            tasks.spawn(stop.clone().run_until_cancelled_owned(sweep_for_ever(store.clone())));
        }
        let service = Arc::new(Service {
            creator: Creator::start(Arc::clone(&shards), config.codes, &tasks, &stop),
            hot: HotLinks::new(Arc::clone(&shards)),
            shards,
            clicks,
            limit: Limit::new(config.creates_per_second, config.trusted_proxies),
            ourselves: Ourselves {
                public: config.public_url.unwrap_or_else(|| listens.clone()),
                listens,
            },
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
