//! How is the service put together, started and stopped?

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use uuid::Uuid;

use crate::{
    choreography::{self, Choreography},
    database::{Database, Databases, connect},
    error::Error,
    log::{Log, Status},
    orchestrator::{Orchestrator, Patience},
    order::Order,
    participants::{Addresses, Participants},
    store::Store,
    two_phase_commit::TwoPhaseCommit,
};

/// How an order finds its way through the services.
#[derive(Clone, Debug)]
pub enum Flow {
    /// The orchestrator asks each in turn.
    Saga(Box<Addresses>, Patience, Duration),
    /// Each reacts to events of the others.
    Choreography(choreography::Config),
    /// One transaction over all databases.
    TwoPhaseCommit,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A malformed URL.
    #[error("a database's URL is malformed: {0}")]
    Url(#[from] sqlx::Error),
    /// No client for the calls can be made.
    #[error("no HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// The flow needs databases that were not given.
    #[error("two-phase commit needs all four databases in one process")]
    Incomplete,
}

/// What the handlers of orders share.
pub struct Service {
    pub(crate) store: Store,
    way: Way,
}

enum Way {
    Saga(Arc<Orchestrator>),
    Choreography(Arc<Choreography>),
    TwoPhaseCommit(Box<TwoPhaseCommit>),
}

impl Service {
    /// A new order, or the one that was made with this key, as it stands.
    pub(crate) async fn place(
        &self,
        key: &str,
        order: &Order,
    ) -> Result<(Uuid, Status, Log), Error> {
        let id = Uuid::now_v7();
        let placed = match &self.way {
            Way::Saga(_) => self.store.insert(id, key, order).await?,
            Way::Choreography(choreography) => choreography.place(id, key, order).await?,
            Way::TwoPhaseCommit(two_phase) => two_phase.place(id, key, order).await?,
        };
        if let (Way::Saga(orchestrator), true) = (&self.way, placed == id) {
            orchestrator.wake();
            // Known without a look: it was written a moment ago.
            return Ok((id, Status::Pending, Log::new(OffsetDateTime::now_utc())));
        }
        let (status, log) = self.store.find(placed).await?.ok_or(Error::NotFound)?;
        Ok((placed, status, log))
    }

    pub(crate) fn wake(&self) {
        if let Way::Saga(orchestrator) = &self.way {
            orchestrator.wake();
        }
    }
}

/// What `GET /readyz` looks at.
pub struct Health {
    databases: Vec<Database>,
    orchestrator: Option<Arc<Orchestrator>>,
}

impl Health {
    pub(crate) async fn check(&self) -> Result<(), Error> {
        for database in &self.databases {
            database.ping().await?;
        }
        Ok(())
    }

    pub(crate) fn fenced_writes(&self) -> u64 {
        self.orchestrator.as_ref().map_or(0, |orchestrator| orchestrator.fenced())
    }
}

/// The running service.
pub struct App {
    /// What the handlers of orders share, if the orchestrator runs here.
    pub(crate) service: Option<Arc<Service>>,
    /// The databases of the inventory, of payments and of shipping: of those that run here.
    pub(crate) participants: [Option<Database>; 3],
    pub(crate) health: Arc<Health>,
    /// All that runs in the background.
    tasks: TaskTracker,
    /// Tells it to stop, also when the app is only dropped.
    running: DropGuard,
}

impl App {
    /// Starts what runs in the background. Must be called within a tokio runtime. The databases need not be there
    /// yet; the error is a malformed URL, or none.
    pub fn start(urls: &Databases, flow: Flow) -> Result<Self, StartError> {
        let open = |url: &Option<String>| url.as_deref().map(connect).transpose();
        let orders = open(&urls.orders)?.map(Store::new);
        let participants = [open(&urls.inventory)?, open(&urls.payment)?, open(&urls.shipping)?];
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let mut databases: Vec<_> = participants.iter().flatten().cloned().collect();
        databases.extend(orders.as_ref().map(|store| store.database().clone()));
        let mut orchestrator = None;
        let way = match (flow, &orders) {
            (Flow::Choreography(config), _) => {
                let services = choreography::services(orders.as_ref(), &participants);
                let choreography = Arc::new(Choreography::new(config, services));
                tasks.spawn(Arc::clone(&choreography).run(stop.clone()));
                Some(Way::Choreography(choreography))
            }
            (Flow::Saga(addresses, patience, timeout), Some(store)) => {
                let participants = Participants::new(*addresses, timeout)?;
                let it = Arc::new(Orchestrator::new(store.clone(), participants, patience));
                tasks.spawn(Arc::clone(&it).run(stop.clone()));
                orchestrator = Some(Arc::clone(&it));
                Some(Way::Saga(it))
            }
            (Flow::TwoPhaseCommit, _) => {
                let coordinator = TwoPhaseCommit::new(urls)?.ok_or(StartError::Incomplete)?;
                Some(Way::TwoPhaseCommit(Box::new(coordinator)))
            }
            (Flow::Saga(..), None) => None,
        };
        tasks.close();
        let service = orders.zip(way).map(|(store, way)| Arc::new(Service { store, way }));
        let health = Arc::new(Health { databases, orchestrator });
        Ok(Self { service, participants, health, tasks, running: stop.drop_guard() })
    }

    /// Lets each saga come to its next record, and ends what runs in the background; takes seconds at most.
    pub async fn stop(self) {
        drop(self.running);
        self.tasks.wait().await;
    }
}
