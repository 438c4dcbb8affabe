//! How is the service put together, started and stopped?

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use edge::client_address::TrustedProxy;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    access::Limit, cache::HotLinks, clicks::Clicks, create::Creator, long_url::Ourselves, reshard,
    ring::Shards, store::Store,
};

const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The URL of a `PostgreSQL` database. Give several, and the links are spread over them; add a new one at the end
    #[arg(long = "shard", value_name = "URL")]
    pub shards: Vec<String>,
    /// Before serving, moves the links that belong on a new shard there. First stop all other processes of the service
    #[arg(long)]
    pub reshard: bool,
    /// Links that one client may create in a second; after a pause, twice as many at once
    #[arg(long, default_value = "100")]
    pub creates_per_second: NonZeroU32,
    /// A load balancer, or a network of them, whose `X-Forwarded-For` tells the client's address
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The URL at which clients reach the service, if it is not the address on which it listens
    #[arg(long, value_name = "URL")]
    pub public_url: Option<Url>,
}

/// The running service, which all handlers share.
pub struct Service {
    pub(crate) shards: Arc<Shards>,
    pub(crate) creator: Creator,
    pub(crate) hot: HotLinks,
    /// One for each shard.
    pub(crate) clicks: Vec<Arc<Clicks>>,
    pub(crate) limit: Limit,
    pub(crate) ourselves: Ourselves,
    /// All that runs in the background.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Service {
    /// Checks that the shards are a ring, and starts what runs in the background.
    pub async fn start(options: Options, listens: Url) -> anyhow::Result<Arc<Self>> {
        let shards = Arc::new(Shards::new(&options.shards)?);
        reshard::open(&shards, options.reshard).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (mut queues, mut clicks) = (Vec::new(), Vec::new());
        // Each shard has tasks of its own, so a shard that is away does not hold up the others.
        for store in shards.all() {
            queues.push(Creator::start(store, &tasks, &stop));
            clicks.push(Clicks::start(store, &tasks, &stop));
            tasks.spawn(stop.clone().run_until_cancelled_owned(sweep(store.clone())));
        }
        let public = options.public_url.unwrap_or_else(|| listens.clone());
        Ok(Arc::new(Self {
            creator: Creator { shards: Arc::clone(&shards), queues },
            hot: HotLinks::new(Arc::clone(&shards)),
            shards,
            clicks,
            limit: Limit::new(options.creates_per_second, options.trusted_proxies),
            ourselves: Ourselves { public, listens },
            tasks,
            stop,
        }))
    }

    /// Writes the clicks that were counted, and ends what runs in the background. Call it when no request is in flight
    /// any more; it takes some seconds at most.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Deletes expired links in pieces, until the service stops. Nothing depends on when this runs, because each read
/// checks whether its link has expired.
async fn sweep(store: Store) {
    loop {
        match store.sweep().await {
            // There may be more.
            Ok(1..) => continue,
            Ok(0) => {}
            Err(error) => tracing::warn!(%error, "the sweep failed; expired links stay for now"),
        }
        sleep(SWEEP_EVERY).await;
    }
}
