//! "Design a scalable notification system."
//!
//! A notification is recorded, published with a confirm to the queue of its user's shard, and then accepted.
//! One worker at a time serves a shard, and each step of an attempt is recorded so that another can take
//! over anywhere. Sockets read a stream in the database, and Redis only tells them when to look.
//!
//! In reading order: what comes in ([`ids`], [`notification`]), where it goes ([`shard`], [`topology`],
//! [`broker`]), where it is kept ([`store`]), when it is accepted ([`accept`]), how it is
//! delivered ([`worker`], [`deliver`], [`backoff`]), to sockets ([`live`], [`hub`], [`ticket`], [`socket`]) and to
//! devices ([`https`], [`oauth`], [`push`]), and how it is put together ([`service`]) and speaks HTTP ([`error`],
//! [`body`], [`api`]).

pub mod ids;
pub mod notification;
pub mod shard;
pub mod topology;
pub mod broker;
pub mod store;
pub mod accept;
pub mod worker;
pub mod deliver;
pub mod backoff;
pub mod live;
pub mod hub;
pub mod ticket;
pub mod socket;
pub mod https;
pub mod oauth;
pub mod push;
pub mod service;
pub mod error;
pub mod body;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use lab::{Answer, Serve, Service, Serving};
use url::{Host, Url};

use crate::{
    backoff::Backoff,
    service::{App, Config, Role},
    socket::Patience,
    topology::Topology,
};

pub use store::MIGRATIONS;

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// What this process does: calls and sockets, deliveries, or both
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// The shards that this process may deliver for, as FIRST-LAST; all of them unless told otherwise
    #[arg(long, value_parser = shards, value_name = "RANGE")]
    shards: Option<RangeInclusive<u16>>,
    /// How many shards there are; the same for all processes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    shard_count: u16,
    /// Calls must show this key, but for the stream; needed to listen on anything but loopback
    #[arg(long, env = "NOTIFICATION_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The service account that pushes are sent by, as Google's console gives it out
    #[arg(long, value_name = "FILE")]
    fcm_credentials: Option<PathBuf>,
    /// Where FCM is
    #[arg(long, default_value = "https://fcm.googleapis.com/")]
    fcm_url: Url,
    /// Failures after which a notification is dead
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=16))]
    attempts: u16,
    /// Milliseconds before the second attempt; twice as many before each one after it
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(20..=600_000))]
    backoff_ms: u64,
    /// Notifications that a user is sent in a minute, the rest collapsed into one; 0: any number
    #[arg(long, default_value_t = 0)]
    quiet_limit: u32,
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
    /// Seconds after which a client that takes nothing is dropped
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    slow_seconds: u64,
    /// What the names of queues and exchanges begin with
    #[arg(long, default_value = "worked-answers.notification-worker")]
    queue_prefix: String,
    /// What keys and channels in Redis begin with
    #[arg(long, default_value = "worked-answers:notification-worker:")]
    key_prefix: String,
}

/// `0-3`, or `2`.
fn shards(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no shard"));
    let (first, last): (u16, u16) = (number(first)?, number(last)?);
    if first > last { Err("the last is before the first".to_owned()) } else { Ok(first..=last) }
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
        serve: Serve::new(serve),
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
    if options.api_key.as_deref().is_none_or(str::is_empty) && !loopback {
        bail!("whoever reaches this address could notify anybody: give an --api-key");
    }
    let (database, redis, broker) = tokio::try_join!(
        serving.database(),
        serving.server(Service::Redis),
        serving.server(Service::RabbitMq),
    )?;
    let app = App::start(options.config(database, redis, broker)?)?;
    app.connected().await;
    let (router, stopping) = (api::router(&app), app.stopping());
    // The sockets end first: the server waits for what is open.
    let said = tokio::spawn(async move {
        lab::serve::asked_to_stop().await;
        stopping.cancel();
    });
    serving.run(router).await?;
    said.abort();
    app.stop().await;
    Ok(())
}

impl Options {
    fn config(self, database: String, redis: String, broker: String) -> anyhow::Result<Config> {
        let account = |path: PathBuf| {
            let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
            serde_json::from_slice(&text)
                .with_context(|| format!("{} is not the file of a service account", path.display()))
        };
        let fcm = self.fcm_credentials.map(account).transpose()?;
        Ok(Config {
            role: self.role,
            database,
            redis,
            broker,
            key_prefix: self.key_prefix,
            topology: Topology {
                prefix: self.queue_prefix,
                shards: self.shard_count,
                max_queue: self.max_queue,
            },
            worker: worker::Config {
                shards: self.shards.unwrap_or(0..=self.shard_count - 1),
                concurrency: self.concurrency.into(),
                prefetch: self.prefetch,
                lease: Duration::from_millis(self.lease_ms),
            },
            backoff: Backoff {
                first: Duration::from_millis(self.backoff_ms),
                attempts: self.attempts,
            },
            quiet_limit: self.quiet_limit,
            fcm: fcm.map(|account| (account, self.fcm_url)),
            api_key: self.api_key.filter(|key| !key.is_empty()),
            ticket_seconds: self.ticket_seconds,
            patience: Patience {
                ping_every: Duration::from_secs(self.ping_seconds),
                slowest: Duration::from_secs(self.slow_seconds),
            },
        })
    }
}
