//! "Design a scalable notification system."
//!
//! A notification is recorded, published with a confirm to the queue of its user's shard, and then accepted. One worker
//! at a time serves a shard, and each step of an attempt is recorded, so that another can take over anywhere. Sockets
//! read a stream in the database, and Redis only tells them when to look.
//!
//! In reading order: the naive version ([`whiteboard`]), what comes in ([`notification`]), what can go wrong
//! ([`error`]), the broker ([`topology`], [`broker`]), the database ([`store`]). Then four acts: [`accept`];
//! deliver ([`worker`], [`deliver`], [`push`]); [`retry`] or bury; sockets ([`hub`], [`socket`]). At last how it speaks
//! HTTP ([`api`]). How it is put together, started and stopped stands here.

pub mod whiteboard;
pub mod notification;
pub mod error;
pub mod topology;
pub mod broker;
pub mod store;
pub mod accept;
pub mod worker;
pub mod deliver;
pub mod push;
pub mod retry;
pub mod hub;
pub mod socket;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use lab::{Answer, Serve, Service, Serving};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::{Host, Url};

use crate::{
    broker::Broker,
    deliver::Deliverer,
    hub::{Hub, Live},
    push::Fcm,
    retry::Backoff,
    socket::Patience,
    store::Store,
    topology::Topology,
    worker::Worker,
};

pub use store::MIGRATIONS;

/// A broker that is there is connected by then; one that is not is waited for no longer.
const FIRST_LINK: Duration = Duration::from_secs(10);
/// On a clean stop, for what is under way.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// What a process does. The two scale apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Everything, in one process.
    #[default]
    All,
    /// Calls and sockets.
    Api,
    /// Deliveries.
    Worker,
}

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// What this process does: calls and sockets, deliveries, or both
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// How many shards there are; the same for all processes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    shard_count: u16,
    /// A node of the RabbitMQ cluster; once for each node
    #[arg(long, value_name = "URL")]
    amqp_url: Vec<String>,
    /// The key that calls must show, all but the stream; needed to listen on anything but loopback
    #[arg(long, env = "NOTIFICATION_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The service account for pushes: the file that Google's console gives out
    #[arg(long, value_name = "FILE")]
    fcm_credentials: Option<PathBuf>,
    /// Where FCM is
    #[arg(long, default_value = "https://fcm.googleapis.com/")]
    fcm_url: Url,
    /// Failures after which a notification is dead
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=16))]
    attempts: u16,
    /// Milliseconds before the second attempt; twice as many before each further one
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(20..=600_000))]
    backoff_ms: u64,
    /// Seconds after which a job of which nobody has heard is published again
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lost_seconds: u32,
    /// Messages that a queue holds before calls are refused
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_queue: u32,
    /// Deliveries under way at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    concurrency: u16,
    /// Messages that are fetched from a queue ahead of their delivery
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    prefetch: u16,
    /// Milliseconds after which a worker that is not seen loses its shards
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    lease_ms: u64,
    /// Seconds for which a ticket opens a stream
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    ticket_seconds: u64,
    /// Seconds between two pings of a socket
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    ping_seconds: u64,
    /// Seconds after which a client that reads nothing is dropped
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    slow_seconds: u64,
    /// What the names of queues and exchanges begin with
    #[arg(long, default_value = "worked-answers.notifications")]
    queue_prefix: String,
    /// What keys and channels in Redis begin with
    #[arg(long, default_value = "worked-answers:notification-worker:")]
    key_prefix: String,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "notification-worker",
        question: "Design a scalable notification system",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres, Service::Redis, Service::RabbitMq],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            "job=hello-$(date +%s)",
            r#"curl -i {url}/notifications -H 'content-type: application/json' -d "{\"job_id\":\"$job\",\"user_id\":\"ann\",\"channel\":\"websocket\",\"title\":\"Hello\",\"body\":\"It works.\"}""#,
            "curl -s {url}/notifications/$job",
            "curl -s -X POST {url}/users/ann/stream-tickets",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let loopback = match serving.url().host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    };
    let api_key = options.api_key.clone().filter(|key| !key.is_empty());
    if api_key.is_none() && !loopback {
        bail!("whoever reaches this address could notify anybody: give an --api-key");
    }
    let (database, redis) = tokio::try_join!(serving.database(), serving.server(Service::Redis))?;
    let nodes = match &options.amqp_url[..] {
        [] => vec![serving.server(Service::RabbitMq).await?],
        nodes => nodes.to_vec(),
    };
    let backoff =
        Backoff { first: Duration::from_millis(options.backoff_ms), attempts: options.attempts };
    let topology = Topology {
        prefix: options.queue_prefix.clone(),
        shards: options.shard_count,
        max_queue: options.max_queue,
    };
    let store = Store::new(&database, options.lost_seconds.into())?;
    let live = Live::new(&redis, &options.key_prefix)?;
    let broker = Broker::new(&nodes, topology, backoff).map_err(anyhow::Error::msg)?;
    let broker = Arc::new(broker);
    let (hub, subscription_changes) = Hub::new(live.clone());

    let (stop, hang_up) = (CancellationToken::new(), CancellationToken::new());
    let mut background = JoinSet::new();
    let mut connections = tokio::spawn(Arc::clone(&broker).run(hang_up.clone()));
    if options.role != Role::Worker {
        background.spawn(Arc::clone(&hub).run(subscription_changes, stop.clone()));
    }
    if options.role != Role::Api {
        let deliverer = Deliverer {
            worker: uuid::Uuid::new_v4().to_string(),
            store: store.clone(),
            broker: Arc::clone(&broker),
            live: live.clone(),
            fcm: options.fcm()?,
            backoff,
            quarantine: tokio::sync::RwLock::default(),
        };
        let (places, lease) = (options.concurrency.into(), Duration::from_millis(options.lease_ms));
        let worker = Worker::new(deliverer, places, options.prefetch, lease);
        background.spawn(Arc::new(worker).run(stop.clone()));
        background.spawn(accept::sweep(store.clone(), Arc::clone(&broker), stop.clone()));
    }
    // So that the first call does not find it away; but not for ever.
    let _ = timeout(FIRST_LINK, broker.connected()).await;
    let service = Arc::new(api::Service {
        store,
        broker,
        live,
        hub,
        sockets: TaskTracker::new(),
        stop: stop.clone(),
        patience: Patience {
            ping_every: Duration::from_secs(options.ping_seconds),
            slowest: Duration::from_secs(options.slow_seconds),
        },
        ticket_seconds: options.ticket_seconds,
        api_key,
    });
    // The sockets end first: the server waits for what is open.
    let stopping = stop.clone();
    let said = tokio::spawn(async move {
        lab::serve::asked_to_stop().await;
        stopping.cancel();
    });
    let router = api::router(Arc::clone(&service), options.role == Role::Worker);
    // Half a process that looks alive is worse than none: if something ends too early, all of it does.
    let ends_too_early = async {
        let ended = tokio::select! {
            ended = background.join_next() => ended,
            ended = &mut connections => Some(ended),
        };
        if stop.is_cancelled() { std::future::pending().await } else { ended }
    };
    tokio::select! {
        served = serving.run(router) => served?,
        ended = ends_too_early => bail!("what runs in the background has ended: {ended:?}"),
    }
    said.abort();
    service.sockets.close();
    let ended = async {
        service.sockets.wait().await;
        while background.join_next().await.is_some() {}
        // Last: the acknowledgements are sent on its connections.
        hang_up.cancel();
        let _ = connections.await;
    };
    if timeout(LAST_WORDS, ended).await.is_err() {
        tracing::warn!("stopped in the middle of something; it will be done again");
    }
    Ok(())
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let (database, broker) =
        tokio::try_join!(serving.database(), serving.server(Service::RabbitMq))?;
    serving.run(whiteboard::router(&database, &broker).await?).await
}

impl Options {
    fn fcm(&self) -> anyhow::Result<Option<Fcm>> {
        let Some(path) = &self.fcm_credentials else { return Ok(None) };
        let fcm = std::fs::read_to_string(path).map(|text| Fcm::new(text, &self.fcm_url));
        let what = || format!("{} is not the file of a service account", path.display());
        Ok(Some(fcm.with_context(what)?.with_context(what)?))
    }
}
