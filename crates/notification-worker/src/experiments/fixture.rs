//! What do tests, experiments and cases start from? Fresh parts of the three servers, and processes that share them.

use std::time::Duration;

use anyhow::ensure;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
    keys::Keys,
    queues::Queues,
};
use tokio::time::{Instant, sleep};

use super::fcm::FakeFcm;
use crate::{
    MIGRATIONS,
    cases::{PATIENCE, client::Client},
    topology::Topology,
};

const NAME: &str = "notification-worker";

/// Options that all processes on a fixture share.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `--shard-count`.
    pub shards: u16,
    /// `--backoff-ms`.
    pub backoff_ms: u64,
    /// `--attempts`.
    pub attempts: u16,
}

/// Few shards, and retries that come soon and end soon.
pub const QUICK: Options = Options { shards: 2, backoff_ms: 50, attempts: 4 };

/// Fresh parts of the servers. They go with this value, so it has to outlive its processes.
#[derive(Debug)]
pub struct Fixture {
    /// The database.
    pub database: Database,
    /// The part of Redis.
    pub keys: Keys,
    /// The part of RabbitMQ.
    pub queues: Queues,
    /// What is declared there.
    pub topology: Topology,
    options: Options,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh(options: Options) -> anyhow::Result<Self> {
        Self::on(Queues::fresh(NAME).await?, options).await
    }

    /// For an experiment, whose report names the servers.
    pub async fn of(lab: &Lab, options: Options) -> anyhow::Result<Self> {
        let queues = lab.queues().await?;
        tokio::try_join!(lab.server(Service::Postgres), lab.server(Service::Redis))?;
        Self::on(queues, options).await
    }

    /// On queues that are there, perhaps of another broker.
    pub async fn on(mut queues: Queues, options: Options) -> anyhow::Result<Self> {
        let (database, keys) =
            tokio::try_join!(Database::fresh(NAME, &MIGRATIONS), Keys::fresh(NAME))?;
        let (prefix, shards) = (queues.prefix().to_owned(), options.shards);
        let topology = Topology { prefix, shards, max_queue: 1_000_000 };
        queues.expect((0..shards).map(|it| topology.queue(it)).chain([topology.dead()]), [])?;
        Ok(Self { database, keys, queues, topology, options })
    }

    /// Prepares a process on these parts.
    pub fn serve(&self) -> ChildBuilder {
        let Options { shards, backoff_ms, attempts } = self.options;
        Child::serve(NAME)
            .database(&self.database)
            .env("REDIS_URL", self.keys.url())
            .env("AMQP_URL", self.queues.url())
            .args(&["--queue-prefix", self.queues.prefix(), "--key-prefix", self.keys.prefix()])
            .args(&["--shard-count", &shards.to_string()])
            .args(&["--backoff-ms", &backoff_ms.to_string()])
            .args(&["--attempts", &attempts.to_string()])
    }

    /// Starts a process with these options; and a client of it.
    pub async fn start(&self, options: &[&str]) -> anyhow::Result<(Child, Client)> {
        start(self.serve().args(options)).await
    }

    /// Prepares a worker that pushes by way of this server.
    pub fn worker(&self, fcm: &FakeFcm) -> ChildBuilder {
        self.serve()
            .args(&["--role", "worker", "--fcm-url", &fcm.url(), "--fcm-credentials"])
            .arg(fcm.credentials.path())
    }

    /// Takes a message from the dead-letter queue, as soon as there is one.
    pub async fn buried(&self) -> anyhow::Result<Vec<u8>> {
        let connection = self.queues.connection().await?;
        let channel = connection.create_channel().await?;
        let options = lapin::options::BasicGetOptions { no_ack: true };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = channel.basic_get(self.topology.dead().into(), options).await? {
                let payload = message.data.clone();
                connection.close(200, "goodbye".into()).await?;
                return Ok(payload);
            }
            ensure!(Instant::now() < deadline, "nothing was buried");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Starts a process that has been prepared; and a client of it.
pub async fn start(process: ChildBuilder) -> anyhow::Result<(Child, Client)> {
    let child = process.start().await?;
    let client = Client::at(child.url())?;
    Ok((child, client))
}
