//! How is the service put together, started and stopped?

use std::{sync::Arc, time::Duration};

use tokio::{sync::RwLock, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::Url;

use crate::{
    accept::{self, Acceptor},
    backoff::Backoff,
    broker::Broker,
    deliver::Deliverer,
    hub::Hub,
    live::Live,
    oauth::ServiceAccount,
    push::Fcm,
    socket::Patience,
    store::Store,
    topology::Topology,
    worker::{self, Worker},
};

/// A broker that is there is connected by then; one that is not is waited for no longer.
const FIRST_LINK: Duration = Duration::from_secs(10);
/// On a clean stop, for what is under way.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// What a process does. They scale apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Everything, in one process.
    #[default]
    All,
    /// Calls and sockets.
    Api,
    /// Deliveries.
    Worker,
}

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this process does.
    pub role: Role,
    /// The URL of the database, migrated.
    pub database: String,
    /// The URL of Redis.
    pub redis: String,
    /// The URL of RabbitMQ.
    pub broker: String,
    /// What every key in Redis begins with.
    pub key_prefix: String,
    /// Queues, exchanges, shards.
    pub topology: Topology,
    /// Shards, places, leases.
    pub worker: worker::Config,
    /// When to try again.
    pub backoff: Backoff,
    /// Notifications a user may get in a minute; 0: any number.
    pub quiet_limit: u32,
    /// The service account and the address of FCM.
    pub fcm: Option<(ServiceAccount, Url)>,
    /// The key that calls must show.
    pub api_key: Option<String>,
    /// How long a ticket is good for.
    pub ticket_seconds: u64,
    /// With sockets.
    pub patience: Patience,
}

/// What the handlers share.
pub struct Service {
    pub(crate) store: Store,
    pub(crate) broker: Arc<Broker>,
    pub(crate) live: Live,
    pub(crate) acceptor: Acceptor,
    pub(crate) hub: Arc<Hub>,
    pub(crate) sockets: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) patience: Patience,
    pub(crate) ticket_seconds: u64,
    pub(crate) api_key: Option<String>,
}

/// The running service.
pub struct App {
    service: Arc<Service>,
    role: Role,
    /// All that runs in the background, and stops first; then the broker's connection.
    tasks: TaskTracker,
    connection: (TaskTracker, DropGuard),
    running: DropGuard,
}

impl App {
    /// Starts what runs in the background. Must be called within a tokio runtime. No server need be there;
    /// the error is a malformed URL or key.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let store = Store::new(&config.database)?;
        let live = Live::new(&config.redis, &config.key_prefix)?;
        let broker = Arc::new(Broker::new(config.broker, config.topology, config.backoff));
        let (acceptor, confirms) = Acceptor::new(store.clone(), Arc::clone(&broker));
        let (hub, wishes) = Hub::new(live.clone());
        let fcm = config.fcm.map(|(account, url)| Fcm::new(account, &url)).transpose()?;

        let (stop, hang_up) = (CancellationToken::new(), CancellationToken::new());
        let (tasks, connection) = (TaskTracker::new(), TaskTracker::new());
        let (kept, end) = (Arc::clone(&broker), hang_up.clone());
        connection.spawn(async move { kept.run(end).await });
        connection.close();
        if config.role != Role::Worker {
            tasks.spawn(accept::write_confirms(store.clone(), confirms, stop.clone()));
            tasks.spawn(Arc::clone(&hub).run(wishes, stop.clone()));
        }
        if config.role != Role::Api {
            let deliverer = Deliverer {
                store: store.clone(),
                broker: Arc::clone(&broker),
                live: live.clone(),
                fcm,
                backoff: config.backoff,
                quarantine: RwLock::default(),
                quiet_limit: config.quiet_limit,
            };
            tasks.spawn(Arc::new(Worker::new(deliverer, config.worker)).run(stop.clone()));
            tasks.spawn(accept::sweep(store.clone(), Arc::clone(&broker), stop.clone()));
        }
        tasks.close();
        let service = Service {
            store,
            broker,
            live,
            acceptor,
            hub,
            sockets: TaskTracker::new(),
            stop: stop.clone(),
            patience: config.patience,
            ticket_seconds: config.ticket_seconds,
            api_key: config.api_key,
        };
        Ok(Self {
            service: Arc::new(service),
            role: config.role,
            tasks,
            connection: (connection, hang_up.drop_guard()),
            running: stop.drop_guard(),
        })
    }

    /// Waits for the broker, so that the first call does not find it away; not for ever.
    pub async fn connected(&self) {
        let mut links = self.service.broker.links();
        let _ = timeout(FIRST_LINK, links.wait_for(Option::is_some)).await;
    }

    /// To be told as soon as nobody new is let in, since the server waits for its sockets to end.
    pub fn stopping(&self) -> CancellationToken {
        self.service.stop.clone()
    }

    /// What this process does.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What the handlers share.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Finishes what has begun, and gives back the rest. To be called when no request is in flight any more.
    pub async fn stop(self) {
        drop(self.running);
        self.service.sockets.close();
        let ended = async {
            self.service.sockets.wait().await;
            self.tasks.wait().await;
            // The acknowledgements were sent on it.
            drop(self.connection.1);
            self.connection.0.wait().await;
        };
        if timeout(LAST_WORDS, ended).await.is_err() {
            tracing::warn!("stopped in the middle of something; it will be done again");
        }
    }
}
