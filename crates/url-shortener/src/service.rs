//! How is the service put together, started and stopped?

use std::{num::NonZeroU32, sync::Arc};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::Url;

use crate::{
    cache::HotLinks,
    clicks::{self, Clicks},
    code::Codes,
    create::Creator,
    limit::Limit,
    shards::Shards,
    sweep,
};

/// What can be chosen.
#[derive(Clone)]
pub struct Config {
    /// The URLs of the `PostgreSQL` databases, migrated, one at least. Their order must stay the same.
    pub shards: Vec<String>,
    /// How codes are made.
    pub codes: Codes,
    /// The address at which clients see the service.
    pub public_url: Url,
    /// How many links a client may make in a second; twice as many at once.
    pub creates_per_second: NonZeroU32,
}

/// What the handlers share.
pub struct Service {
    pub(crate) shards: Arc<Shards>,
    pub(crate) creator: Creator,
    pub(crate) hot: HotLinks,
    pub(crate) clicks: Clicks,
    pub(crate) limit: Arc<Limit>,
    pub(crate) public_url: Url,
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
    /// Starts what runs in the background. Must be called within a tokio runtime. The databases need not
    /// be there yet; the error is a malformed URL, or none.
    pub fn start(config: Config) -> Result<Self, sqlx::Error> {
        let shards = Arc::new(Shards::new(&config.shards)?);
        let limit = Arc::new(Limit::new(config.creates_per_second));
        let (clicks, writer) = clicks::queue(Arc::clone(&shards));

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(writer.run(stop.clone()));
        tasks.spawn(sweep::run(Arc::clone(&shards), stop.clone()));
        tasks.spawn(Arc::clone(&limit).run(stop.clone()));
        tasks.close();

        let service = Service {
            creator: Creator::new(Arc::clone(&shards), config.codes),
            hot: HotLinks::new(Arc::clone(&shards)),
            shards,
            clicks,
            limit,
            public_url: config.public_url,
        };
        Ok(Self { service: Arc::new(service), tasks, running: stop.drop_guard() })
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
