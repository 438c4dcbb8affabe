//! How is the service put together, started and stopped?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    flight::Flights, gate::Gate, lease::Loader, link::Address, read::Reader, store::Store,
    trust::Trust, tuning::Tuning, write::Writer,
};

/// A start waits for Redis no longer than this: it can do without.
const FIRST_CONFIRMATION: Duration = Duration::from_secs(1);

/// What the handlers share.
#[derive(Debug)]
pub struct Service {
    /// Reads users.
    pub reader: Arc<Reader>,
    /// Changes users.
    pub writer: Writer,
}

/// The running service.
#[derive(Debug)]
pub struct App {
    /// What it does.
    pub service: Arc<Service>,
    /// All that runs in the background.
    tasks: TaskTracker,
    /// Tells it to stop, also when the app is only dropped.
    running: DropGuard,
}

impl App {
    /// Starts what runs in the background. The servers need not be there yet; the error is a malformed URL.
    pub async fn start(
        database_url: &str,
        redis_url: &str,
        tuning: &Tuning,
    ) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        let store = Store::new(database_url, tuning.database_timeout)?;
        let address = Address::new(redis_url, &tuning.key_prefix, tuning.redis_timeout)?;
        let trust = Arc::new(Trust::new(address, tuning.trust, tuning.redis_timeout));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(Arc::clone(&trust).watch(store.clone(), stop.clone()));
        let gate = Arc::new(Gate::new(store.clone(), tuning.database_timeout));
        let reader = Reader {
            trust: Arc::clone(&trust),
            loader: Loader {
                gate,
                lives: tuning.lives(),
                lease: tuning.lease,
                patience: tuning.patience,
            },
            flights: Arc::new(Flights::default()),
            stampede: tuning.stampede,
            beta: tuning.beta,
            tasks: tasks.clone(),
        };
        // So that the first readers need not go around a Redis that is well.
        trust.wait(FIRST_CONFIRMATION).await;
        let service = Service { reader: Arc::new(reader), writer: Writer { store, trust } };
        Ok(Self { service: Arc::new(service), tasks, running: stop.drop_guard() })
    }

    /// Ends what runs in the background. To be called when no request is in flight any more; takes as long as
    /// a load at most.
    pub async fn stop(self) {
        drop(self.running);
        self.tasks.close();
        self.tasks.wait().await;
    }
}
