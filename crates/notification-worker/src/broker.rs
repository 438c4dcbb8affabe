//! How do jobs get into RabbitMQ, and when is that certain?
//!
//! Invariant: a message that was published here without an error is in a quorum queue, on disk, until a consumer
//! acknowledges it. Everything else is an error.
//!
//! There are two connections. Under its memory or disk alarm RabbitMQ stops reading from every connection that
//! publishes. On a connection of their own, acknowledgements still get through, and the queues drain.

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    uri::AMQPUri,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{error::Error, notification::Message, topology::Topology};

/// For a publish, and for its confirm. Leaves a client an answer within seconds.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// For a connection and all declarations.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two attempts to connect, or half of it: jitter, so that a fleet does not come back in step.
const RECONNECT: Duration = Duration::from_secs(1);
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
    /// What is declared.
    pub topology: Topology,
    publishing: Links,
    /// For consumers.
    pub consuming: Links,
}

impl Broker {
    /// The nodes of one broker. Connects when it runs. The error is a malformed URL.
    pub fn new(urls: &[String], topology: Topology) -> Result<Self, String> {
        let mut nodes = urls.iter().map(|url| url.parse()).collect::<Result<Vec<AMQPUri>, _>>()?;
        for node in &mut nodes {
            node.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        }
        let (publishing, consuming) = (Links::new(None), Links::new(None));
        Ok(Self { nodes, topology, publishing, consuming })
    }

    /// Returns when there is a link to publish on, and one to consume on.
    pub async fn connected(&self) {
        for links in [&self.publishing, &self.consuming] {
            let _ = links.subscribe().wait_for(Option::is_some).await;
        }
    }

    /// Keeps both connections open, for ever.
    pub async fn run(self: Arc<Self>) {
        let (publishing, consuming) = (&self.publishing, &self.consuming);
        tokio::join!(self.keep_connected(publishing), self.keep_connected(consuming));
    }

    // ANCHOR: keep_connected
    /// Connects, to the next node each time, and declares everything: the broker may have come back empty, or somebody
    /// has deleted a queue. lapin can recover by itself, but then whoever waits for a confirm waits through the whole
    /// outage, and a client should have its 503 at once.
    async fn keep_connected(&self, links: &Links) {
        for node in (0..self.nodes.len()).cycle().skip(rand::random_range(0..self.nodes.len())) {
            match timeout(CONNECT_TIMEOUT, self.connect(self.nodes[node].clone())).await {
                Ok(Ok(link)) => {
                    let link = Arc::new(link);
                    links.send_replace(Some(Arc::clone(&link)));
                    while link.lives() {
                        sleep(LOOK_EVERY).await;
                    }
                    links.send_replace(None);
                    let goodbye = link.connection.close(200, "goodbye".into());
                    let _ = timeout(PUBLISH_TIMEOUT, goodbye).await;
                }
                failed => tracing::warn!(error = ?failed.map(drop), "no connection to the broker"),
            }
            sleep(RECONNECT.mul_f64(rand::random_range(0.5..1.0))).await;
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
    /// Puts a job into its shard's queue. Returns only when the broker has confirmed the message: then a quorum of its
    /// nodes has it on disk.
    pub async fn publish(&self, message: &Message) -> Result<(), Error> {
        let link = self.ready()?;
        let queue = self.topology.queue(self.topology.shard_of(&message.user_id));
        let payload = serde_json::to_vec(message).map_err(|error| Error::Internal(error.into()))?;
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        // Mandatory: a message that no queue takes comes back. Without it, it would be confirmed, and gone.
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let publish = async {
            let queue = queue.as_str().into();
            link.channel.basic_publish("".into(), queue, options, &payload, properties).await?.await
        };
        match timeout(PUBLISH_TIMEOUT, publish).await.map_err(|_| AWAY)?? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Nack(_) => Err(FULL),
            _ => {
                tracing::error!(queue, "a queue is missing");
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

    /// Whether both links live, and everything is there that was declared. Declaring again what is there changes nothing;
    /// what cannot be declared makes this fail, for as long as it lasts.
    pub async fn check(&self) -> Result<(), Error> {
        self.consuming.borrow().clone().filter(|link| link.lives()).ok_or(AWAY)?;
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
