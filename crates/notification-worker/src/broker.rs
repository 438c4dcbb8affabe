//! How do jobs get into RabbitMQ, and when is that certain?
//!
//! Invariant: a message that was published here without an error is in a quorum queue, on disk, until a consumer
//! acknowledges it. Everything else is an error.
//!
//! There are two connections. Under its memory or disk alarm RabbitMQ stops reading from every connection that
//! publishes. On a connection of their own, acknowledgements still get through, and the queues drain.

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    notification::{Message, Priority},
    retry::Backoff,
    topology::Topology,
};

/// For a publish, and for its confirm. Leaves a client an answer within seconds.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// For a connection and all declarations.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two attempts to connect: twice as long each time, from the first to the last.
const RECONNECT: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// lapin does not wake anybody up when a connection is lost.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A peer that has vanished is noticed by its missing heartbeats. RabbitMQ would suggest a minute; until then it counts
/// the consumers of a machine that is gone, and their shards stand still.
const HEARTBEAT_SECONDS: u16 = 10;
/// Durable: without it a quorum queue takes the message, and promises nothing for it.
const PERSISTENT: u8 = 2;

const AWAY: Error = Error::Away("the broker is away; nothing was accepted");
/// A queue is full, or the broker has raised an alarm over its memory or its disk.
const FULL: Error = Error::Away("the broker has no room; nothing was accepted");

/// A connection on which everything has been declared.
pub struct Link {
    /// Consumers make their channels on it.
    pub connection: Connection,
    /// For publishing, in confirm mode.
    channel: Channel,
}

/// A link as it comes and goes.
type Links = watch::Sender<Option<Arc<Link>>>;

/// The broker, or the hope of one.
pub struct Broker {
    nodes: Vec<AMQPUri>,
    topology: Topology,
    backoff: Backoff,
    publishing: Links,
    consuming: Links,
}

impl Broker {
    /// The nodes of one broker. Connects when it runs. The error is a malformed URL.
    pub fn new(urls: &[String], topology: Topology, backoff: Backoff) -> Result<Self, String> {
        let mut nodes = urls.iter().map(|url| url.parse()).collect::<Result<Vec<AMQPUri>, _>>()?;
        for node in &mut nodes {
            node.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        }
        let (publishing, consuming) = (Links::new(None), Links::new(None));
        Ok(Self { nodes, topology, backoff, publishing, consuming })
    }

    /// For consumers: the link as it comes and goes.
    pub fn links(&self) -> watch::Receiver<Option<Arc<Link>>> {
        self.consuming.subscribe()
    }

    /// What is declared.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Returns when there is a link to publish on.
    pub async fn connected(&self) {
        let _ = self.publishing.subscribe().wait_for(Option::is_some).await;
    }

    /// Keeps both connections open until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(
            self.keep_connected(&self.publishing, &stop),
            self.keep_connected(&self.consuming, &stop),
        );
    }

    // ANCHOR: keep_connected
    /// Connects, to the next node each time, and declares everything: the broker may have come back empty, or somebody
    /// has deleted a queue. lapin can recover by itself, but then whoever waits for a confirm waits through the whole
    /// outage, and a client should have its 503 at once.
    async fn keep_connected(&self, links: &Links, stop: &CancellationToken) {
        let (mut wait, mut node) = (RECONNECT[0], rand::random_range(0..self.nodes.len()));
        while !stop.is_cancelled() {
            match timeout(CONNECT_TIMEOUT, self.connect(self.nodes[node].clone())).await {
                Ok(Ok(link)) => {
                    wait = RECONNECT[0];
                    let link = Arc::new(link);
                    links.send_replace(Some(Arc::clone(&link)));
                    while link.lives() && !stop.is_cancelled() {
                        stop.run_until_cancelled(sleep(LOOK_EVERY)).await;
                    }
                    links.send_replace(None);
                    let goodbye = link.connection.close(200, "goodbye".into());
                    let _ = timeout(PUBLISH_TIMEOUT, goodbye).await;
                }
                failed => tracing::warn!(error = ?failed.map(drop), "no connection to the broker"),
            }
            node = (node + 1) % self.nodes.len();
            // Jitter, so that a fleet does not come back in step.
            stop.run_until_cancelled(sleep(wait.mul_f64(rand::random_range(0.5..1.0)))).await;
            wait = (wait * 2).min(RECONNECT[1]);
        }
    }
    // ANCHOR_END: keep_connected

    async fn connect(&self, node: AMQPUri) -> lapin::Result<Link> {
        let name = "notification-worker".into();
        let properties = ConnectionProperties::default().with_connection_name(name);
        let connection = Connection::connect_uri(node, properties).await?;
        self.declare(&connection).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Link { connection, channel })
    }

    /// On a channel of its own: what is refused closes its channel.
    async fn declare(&self, connection: &Connection) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        self.topology.declare(&channel).await?;
        channel.close(200, "goodbye".into()).await
    }

    // ANCHOR: publish
    /// Puts a job into its shard's queue.
    pub async fn publish(&self, message: &Message, priority: Priority) -> Result<(), Error> {
        let key = self.topology.key(None, self.topology.shard_of(&message.user_id), priority);
        self.send(self.topology.exchange(), &key, &json(message)?, FieldTable::default()).await
    }

    /// Puts a job into the queue that keeps it for this long, or nearly, and then gives it to its shard.
    pub async fn delay(
        &self,
        message: &Message,
        priority: Priority,
        wait: Duration,
    ) -> Result<(), Error> {
        let (link, step) = (self.ready()?, self.backoff.delay_step(wait));
        // Each time: retries are rare, and somebody may have deleted it.
        let declare = self.topology.declare_delay(&link.channel, step);
        timeout(PUBLISH_TIMEOUT, declare).await.map_err(|_| AWAY)??;
        let shard = self.topology.shard_of(&message.user_id);
        let (exchange, key) =
            (self.topology.delays(), self.topology.key(Some(step), shard, priority));
        self.send(&exchange, &key, &json(message)?, FieldTable::default()).await
    }

    /// Puts what cannot be delivered into the dead-letter queue, with the reason.
    pub async fn bury(&self, payload: &[u8], reason: &str) -> Result<(), Error> {
        let mut headers = FieldTable::default();
        headers.insert("x-reason".into(), AMQPValue::LongString(reason.into()));
        self.send(&self.topology.dead(), "", payload, headers).await
    }

    /// Returns only when the broker has confirmed the message: then a quorum of its nodes has it on disk.
    async fn send(
        &self,
        exchange: &str,
        key: &str,
        payload: &[u8],
        headers: FieldTable,
    ) -> Result<(), Error> {
        let link = self.ready()?;
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        // Mandatory: a message that no queue takes comes back. Without it, it would be confirmed, and gone.
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publish = async {
            let (exchange, key) = (exchange.into(), key.into());
            let confirm: PublisherConfirm =
                link.channel.basic_publish(exchange, key, options, payload, properties).await?;
            confirm.await
        };
        match timeout(PUBLISH_TIMEOUT, publish).await.map_err(|_| AWAY)?? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Nack(_) => Err(FULL),
            _ => {
                tracing::error!(exchange, key, "a queue is missing");
                link.end().await;
                Err(AWAY)
            }
        }
    }
    // ANCHOR_END: publish

    /// The link to publish on, if the broker takes messages now.
    pub fn ready(&self) -> Result<Arc<Link>, Error> {
        let link = self.publishing.borrow().clone().filter(|link| link.lives()).ok_or(AWAY)?;
        if link.connection.status().blocked() { Err(FULL) } else { Ok(link) }
    }

    /// Whether everything is there that was declared. Declaring again what is there changes nothing; what cannot be
    /// declared makes this fail, for as long as it lasts.
    pub async fn check(&self) -> Result<(), Error> {
        let link = self.ready()?;
        let declared = timeout(PUBLISH_TIMEOUT, self.declare(&link.connection)).await;
        // A broker that is only slow keeps its link.
        let declared = declared.map_err(|_| AWAY)?;
        if declared.is_err() {
            link.end().await;
        }
        Ok(declared?)
    }
}

impl Link {
    /// A channel that was closed, by an error of ours or a deleted exchange, is replaced together with its connection.
    pub fn lives(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Something is missing that was declared on it. The next one declares it again.
    async fn end(&self) {
        let goodbye = self.channel.close(200, "something is missing".into());
        let _ = timeout(PUBLISH_TIMEOUT, goodbye).await;
    }
}

fn json(message: &Message) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(message).map_err(Error::internal)
}
