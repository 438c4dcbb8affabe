//! How do jobs get into RabbitMQ, and when is that certain?
//!
//! Invariant: a message that was published here without an error is in a quorum queue, on disk, or will be
//! taken out of it by a consumer that acknowledges it. Everything else is an error.

use std::{collections::HashSet, sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    backoff::Backoff,
    error::Error,
    notification::{Message, Priority},
    shard::Ring,
    topology::Topology,
};

/// For a publish, and for its confirm. Leaves a client an answer within seconds.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// For a connection and all declarations.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two tries to connect: half a second, and twice as long each time up to this.
const SLOWEST_RECONNECT: Duration = Duration::from_secs(5);
/// lapin tells of a lost connection at once, but an idle one is looked at only so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const HEARTBEAT_SECONDS: &str = "10";
/// Durable: without it a quorum queue takes the message, and no promise is made for it.
const PERSISTENT: u8 = 2;

/// A connection with everything declared on it.
pub struct Link {
    /// Channels for consumers are made on it.
    pub connection: Connection,
    /// In confirm mode.
    publishing: Channel,
    /// Delay queues are declared when they are first needed.
    delays: Mutex<HashSet<Duration>>,
}

/// The broker, or the hope of one.
pub struct Broker {
    url: String,
    topology: Topology,
    ring: Ring,
    backoff: Backoff,
    link: watch::Sender<Option<Arc<Link>>>,
}

impl Broker {
    /// Connects when it runs.
    pub fn new(url: String, topology: Topology, backoff: Backoff) -> Self {
        let ring = Ring::new(topology.shards);
        Self { url, topology, ring, backoff, link: watch::Sender::new(None) }
    }

    /// The link as it comes and goes.
    pub fn links(&self) -> watch::Receiver<Option<Arc<Link>>> {
        self.link.subscribe()
    }

    /// What is declared.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Keeps a connection open until it is told to stop, and declares everything again on a new one: the
    /// broker may have come back empty. lapin can recover by itself, but then whoever waits for a confirm
    /// waits through the whole outage, and a client should have its 503 at once.
    pub async fn run(&self, stop: CancellationToken) {
        let mut wait = Duration::from_millis(250);
        loop {
            match timeout(CONNECT_TIMEOUT, self.connect()).await {
                Ok(Ok(link)) => {
                    let link = Arc::new(link);
                    self.link.send_replace(Some(Arc::clone(&link)));
                    wait = Duration::from_millis(250);
                    while link.lives() && !stop.is_cancelled() {
                        stop.run_until_cancelled(sleep(LOOK_EVERY)).await;
                    }
                    self.link.send_replace(None);
                    if stop.is_cancelled() {
                        let goodbye = link.connection.close(200, "goodbye".into());
                        let _ = timeout(PUBLISH_TIMEOUT, goodbye).await;
                        return;
                    }
                    tracing::warn!("the broker is away");
                }
                Ok(Err(error)) => tracing::warn!(%error, "no connection to the broker"),
                Err(_) => tracing::warn!("the broker does not answer"),
            }
            wait = (wait * 2).min(SLOWEST_RECONNECT);
            // Jitter, so that a fleet does not come back in step.
            let jittered = wait.mul_f64(rand::random_range(0.5..1.0));
            if stop.run_until_cancelled(sleep(jittered)).await.is_none() {
                return;
            }
        }
    }

    async fn connect(&self) -> lapin::Result<Link> {
        let properties =
            ConnectionProperties::default().with_connection_name("notification-worker".into());
        let connection = Connection::connect(&with_heartbeat(&self.url), properties).await?;
        let publishing = connection.create_channel().await?;
        self.topology.declare(&publishing).await?;
        publishing.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Link { connection, publishing, delays: Mutex::default() })
    }

    // ANCHOR: publish
    /// Puts a job into its shard's queue.
    pub async fn publish(&self, message: &Message, priority: Priority) -> Result<(), Error> {
        Self::confirmed(self.hand_over(message, priority).await?).await
    }

    /// Puts a job behind those that were handed over before it, and does not wait for the confirm.
    pub async fn hand_over(
        &self,
        message: &Message,
        priority: Priority,
    ) -> Result<PublisherConfirm, Error> {
        let shard = self.ring.shard_of(&message.user_id);
        let key = self.topology.key(None, shard, priority);
        self.send(self.topology.exchange(), &key, &json(message)?, FieldTable::default()).await
    }

    /// Returns only when the broker has confirmed the message: then a quorum of its nodes has it on disk.
    pub async fn confirmed(confirm: PublisherConfirm) -> Result<(), Error> {
        match timeout(PUBLISH_TIMEOUT, confirm).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Nack(_))) => Err(Error::BrokerFull),
            Ok(Ok(unroutable)) => {
                tracing::error!(?unroutable, "no queue takes it");
                Err(Error::BrokerAway)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::BrokerAway),
        }
    }

    /// Puts a job into the queue that keeps it for this long, or nearly, and then gives it to its shard.
    pub async fn delay(
        &self,
        message: &Message,
        priority: Priority,
        wait: Duration,
    ) -> Result<(), Error> {
        let rung = self.backoff.rung(wait);
        let link = self.link()?;
        let mut delays = link.delays.lock().await;
        if !delays.contains(&rung) {
            // The lock is held, so that everybody waits for the one declaration.
            let declare = self.topology.declare_delay(&link.publishing, rung);
            timeout(PUBLISH_TIMEOUT, declare).await.map_err(|_| Error::BrokerAway)??;
            delays.insert(rung);
        }
        drop(delays);
        let key = self.topology.key(Some(rung), self.ring.shard_of(&message.user_id), priority);
        let (delays, payload) = (self.topology.delays(), json(message)?);
        Self::confirmed(self.send(&delays, &key, &payload, FieldTable::default()).await?).await
    }

    /// Puts what cannot be delivered into the dead-letter queue, with its reasons.
    pub async fn bury(&self, payload: &[u8], reasons: &[String]) -> Result<(), Error> {
        let mut headers = FieldTable::default();
        headers.insert("x-reasons".into(), AMQPValue::LongString(reasons.join("\n").into()));
        let (graveyard, dead) = (self.topology.graveyard(), self.topology.dead());
        Self::confirmed(self.send(&graveyard, &dead, payload, headers).await?).await
    }

    async fn send(
        &self,
        exchange: &str,
        key: &str,
        payload: &[u8],
        headers: FieldTable,
    ) -> Result<PublisherConfirm, Error> {
        let link = self.link()?;
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        // Mandatory: what no queue takes comes back, where it would be confirmed and gone.
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let (exchange, key) = (exchange.into(), key.into());
        let publish = link.publishing.basic_publish(exchange, key, options, payload, properties);
        Ok(timeout(PUBLISH_TIMEOUT, publish).await.map_err(|_| Error::BrokerAway)??)
    }
    // ANCHOR_END: publish

    /// Whether the broker is there.
    pub fn ping(&self) -> Result<(), Error> {
        self.link().map(|_| ())
    }

    fn link(&self) -> Result<Arc<Link>, Error> {
        self.link.borrow().clone().ok_or(Error::BrokerAway)
    }
}

impl Link {
    /// A channel that was closed, by an error of ours or a deleted exchange, is mended like a connection.
    pub fn lives(&self) -> bool {
        self.connection.status().connected() && self.publishing.status().connected()
    }
}

/// A peer that has vanished is noticed by its missing heartbeats: until then its shards stand still, since the
/// broker still counts its consumers. The broker would say a minute.
fn with_heartbeat(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if !url.query_pairs().any(|(key, _)| key == "heartbeat") => {
            url.query_pairs_mut().append_pair("heartbeat", HEARTBEAT_SECONDS);
            url.into()
        }
        _ => url.to_owned(),
    }
}

fn json(message: &Message) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(message).map_err(Error::internal)
}
