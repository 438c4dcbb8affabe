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

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use edge::header::ServiceKey;
use lab::{Answer, Serve, Service, Serving};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    broker::Broker,
    hub::{Hub, Live},
    push::Fcm,
    retry::Backoff,
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
    /// Deliveries under way at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    concurrency: u16,
    /// Milliseconds after which a worker that is not seen loses its shards; those in which it has begun a job, after thirty
    /// times as long
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    lease_ms: u64,
    /// Seconds between two pings of a socket; a client that takes nothing for so long is dropped
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    ping_seconds: u64,
    /// What keys and channels in Redis begin with
    #[arg(long, default_value = "worked-answers:notification-worker:")]
    key_prefix: String,
    #[command(flatten)]
    topology: Topology,
    #[command(flatten)]
    backoff: Backoff,
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
    let key = options.api_key.clone().filter(|key| !key.is_empty());
    ensure!(
        key.is_some() || serving.is_local(),
        "whoever reaches this address could notify anybody: give an --api-key"
    );
    let (database, redis) = tokio::try_join!(serving.database(), serving.server(Service::Redis))?;
    let nodes = match &options.amqp_url[..] {
        [] => vec![serving.server(Service::RabbitMq).await?],
        nodes => nodes.to_vec(),
    };
    let store = Store::new(&database)?;
    let live = Live::new(&redis, &options.key_prefix)?;
    let broker = Broker::new(&nodes, options.topology.clone()).map_err(anyhow::Error::msg)?;
    let (broker, hub) = (Arc::new(broker), Arc::new(Hub::new(live.clone())));

    let stop = CancellationToken::new();
    // Until the end: acknowledgements are sent on these connections.
    let mut connections = JoinSet::from_iter([Arc::clone(&broker).run()]);
    let mut background = JoinSet::new();
    if options.role != Role::Worker {
        background.spawn(Arc::clone(&hub).run(stop.clone()));
    }
    if options.role != Role::Api {
        let fcm = options.fcm_credentials.as_deref().map(|path| Fcm::new(path, &options.fcm_url));
        let worker = Worker {
            name: uuid::Uuid::new_v4().to_string(),
            store: store.clone(),
            broker: Arc::clone(&broker),
            live: live.clone(),
            fcm: fcm
                .transpose()
                .context("--fcm-credentials is not the file of a service account")?,
            backoff: options.backoff,
            lease: Duration::from_millis(options.lease_ms),
            concurrency: options.concurrency,
            places: Semaphore::new(options.concurrency.into()),
        };
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
        ping_every: Duration::from_secs(options.ping_seconds),
    });
    let (key, only_works) = (ServiceKey::new(key.as_deref()), options.role == Role::Worker);
    let router = api::router(Arc::clone(&service), key, only_works);
    let mut serving = pin!(serving.run(router));
    // Half a process that looks alive is worse than none: if something ends before it is told to, all of it does.
    tokio::select! {
        served = &mut serving => served?,
        ended = background.join_next() => bail!("what runs in the background has ended: {ended:?}"),
        ended = connections.join_next() => bail!("the connections have ended: {ended:?}"),
        () = lab::serve::asked_to_stop() => {
            // The sockets end first: the server waits for what is open.
            stop.cancel();
            serving.await?;
        }
    }
    stop.cancel();
    service.sockets.close();
    let ended = async {
        service.sockets.wait().await;
        while background.join_next().await.is_some() {}
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
