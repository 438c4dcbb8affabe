//! How does an event get from one service's database into another's, at least once, and count once?
//!
//! It leaves by the outbox, which the change itself has written; it is deleted there when the broker has confirmed it.
//! It arrives with the inbox, which the reaction writes too; only then is it acknowledged. If the process is killed
//! anywhere in between, something is sent twice, and the second time the inbox knows it.
//!
//! Every call of the broker has a time-out, and the connection has a heartbeat. Whatever hangs is given up, and begun
//! again on a new connection.

use std::time::Duration;

use futures_util::{StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    events,
    reactions::{Event, Service},
};
use crate::{error::Error, store::Database};

/// Where the events go.
#[derive(Clone, Debug)]
pub struct Config {
    /// The broker.
    pub amqp: String,
    /// What the names of the exchanges and of the queues begin with.
    pub prefix: String,
    /// How often to look for events that another process has left in an outbox.
    pub poll: Duration,
}

/// A service of this process.
#[derive(Debug)]
pub struct Member {
    /// Which.
    pub service: Service,
    /// Its database.
    pub database: Database,
    /// There is something in its outbox.
    pub filled: Notify,
}

/// For each call of the broker.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection that is silent for twice as long is dead, whatever TCP says.
const HEARTBEAT_SECONDS: u16 = 5;
/// Deliveries that may wait here unacknowledged; the rest waits in the queue.
const PREFETCH: u16 = 16;
/// The broker returns a delivery when its connection breaks. RabbitMQ 4 drops it after twenty returns, unless told
/// otherwise: the event of a charged order would be gone. After so many it goes to the dead-letter queue.
const DELIVERY_LIMIT: i64 = 1_000;
/// Before a database that is away is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks for events that can be forgotten.
const FORGET_EVERY: Duration = Duration::from_mins(1);

/// Why the carrying ended.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL is none.
    #[error("the broker's URL is malformed: {0}")]
    Url(String),
    /// The broker went away, or said no.
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    /// It said nothing.
    #[error("the broker does not answer")]
    TooSlow,
    /// It could not take an event.
    #[error("an event was not confirmed")]
    Unconfirmed,
    /// It ended the delivery.
    #[error("a queue is gone")]
    QueueGone,
}

/// An answer of the broker, which must come in time.
async fn in_time<T>(answer: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    Ok(timeout(PATIENCE, answer).await.map_err(|_| BrokerError::TooSlow)??)
}

/// Carries events, to and from all services of this process, until the broker fails us.
pub async fn carry(config: &Config, services: &[Member]) -> Result<(), BrokerError> {
    let mut uri: AMQPUri = config.amqp.parse().map_err(BrokerError::Url)?;
    uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
    let connection = in_time(Connection::connect_uri(uri, ConnectionProperties::default())).await?;
    let carried = carry_on(&connection, config, services).await;
    // Its deliveries go back to the queues when it is closed, and not before.
    let _ = in_time(connection.close(200, "starting again".into())).await;
    carried
}

async fn carry_on(
    connection: &Connection,
    config: &Config,
    services: &[Member],
) -> Result<(), BrokerError> {
    declare(&in_time(connection.create_channel()).await?, &config.prefix).await?;
    let carriers = services.iter().map(async |member| {
        let inbound = in_time(connection.create_channel()).await?;
        let outbound = in_time(connection.create_channel()).await?;
        tokio::try_join!(receive(&inbound, config, member), send(&outbound, config, member))
    });
    try_join_all(carriers).await?;
    Ok(())
}

/// All of it, by everyone: an event for a service that has never run yet waits for it.
async fn declare(channel: &Channel, prefix: &str) -> Result<(), BrokerError> {
    let (events, dead) = (format!("{prefix}events"), format!("{prefix}dead"));
    for (exchange, kind) in [(&events, ExchangeKind::Topic), (&dead, ExchangeKind::Fanout)] {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default();
        in_time(channel.exchange_declare(exchange.as_str().into(), kind, options, none)).await?;
    }
    let text = |text: &str| AMQPValue::LongString(text.into());
    let mut arguments = FieldTable::default();
    // Replicated where there are several nodes, on disk in any case.
    arguments.insert("x-queue-type".into(), text("quorum"));
    queue(channel, &dead, arguments.clone(), &dead, &[""]).await?;
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    arguments.insert("x-dead-letter-exchange".into(), text(&dead));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    for service in Service::ALL {
        let name = format!("{prefix}{}", service.name());
        queue(channel, &name, arguments.clone(), &events, service.listens_to()).await?;
    }
    Ok(())
}

async fn queue(
    channel: &Channel,
    name: &str,
    arguments: FieldTable,
    exchange: &str,
    keys: &[&str],
) -> Result<(), BrokerError> {
    in_time(channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)).await?;
    for &key in keys {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        in_time(channel.queue_bind(name.into(), exchange.into(), key.into(), options, none))
            .await?;
    }
    Ok(())
}

async fn receive(
    channel: &Channel,
    config: &Config,
    Member { service, database, filled }: &Member,
) -> Result<(), BrokerError> {
    in_time(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let queue = format!("{}{}", config.prefix, service.name());
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let consume = channel.basic_consume(queue.as_str().into(), "".into(), options, none);
    let mut deliveries = in_time(consume).await?;
    while let Some(delivery) = deliveries.next().await {
        react(*service, database, &delivery?).await?;
        filled.notify_one();
    }
    Err(BrokerError::QueueGone)
}

// ANCHOR: inbox
/// Inbox, reaction and outbox in one transaction; the acknowledgement after it.
async fn react(
    service: Service,
    database: &Database,
    delivery: &Delivery,
) -> Result<(), BrokerError> {
    // Checked as the API checks it. What is no event goes to the dead-letter queue.
    let event = serde_json::from_slice::<Event>(&delivery.data).ok();
    loop {
        let reacted = match &event {
            Some(event) => database.transaction(async |c| service.receive(c, event).await).await,
            None => Err(Error::NotFound),
        };
        match reacted {
            Ok(()) => {
                return in_time(delivery.acker.ack(BasicAckOptions::default())).await.map(drop);
            }
            // Asked again here. Given back to the broker, each attempt would count as a return.
            Err(Error::DatabaseAway) => sleep(PAUSE).await,
            Err(error) => {
                tracing::error!(
                    service = service.name(),
                    ?error,
                    "an event goes to the dead letters"
                );
                let reject = BasicRejectOptions { requeue: false };
                return in_time(delivery.acker.reject(reject)).await.map(drop);
            }
        }
    }
}
// ANCHOR_END: inbox

// ANCHOR: relay
/// Sends what is in the outbox, and deletes it there once the broker has confirmed it.
async fn send(
    channel: &Channel,
    config: &Config,
    Member { database, filled, .. }: &Member,
) -> Result<(), BrokerError> {
    in_time(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    loop {
        let (events, wait) = match database.within(async |c| events::take(c).await).await {
            Ok((events, next_due)) => (events, next_due.unwrap_or(config.poll).min(config.poll)),
            Err(error) => {
                tracing::warn!(%error, "cannot look into an outbox");
                (Vec::new(), PAUSE)
            }
        };
        if events.is_empty() {
            // Woken, or it is time to look again.
            let _ = timeout(wait.max(SHORTEST_REST), filled.notified()).await;
            continue;
        }
        let mut confirmations = Vec::new();
        for (_, event) in &events {
            confirmations.push(publish(channel, config, event).await?);
        }
        for confirmation in confirmations {
            if !matches!(in_time(confirmation).await?, Confirmation::Ack(None)) {
                return Err(BrokerError::Unconfirmed);
            }
        }
        let sent: Vec<_> = events.iter().map(|(id, _)| *id).collect();
        if let Err(error) = database.within(async |c| events::delete(c, &sent).await).await {
            // They are sent once more, and the inboxes know them.
            tracing::warn!(%error, "cannot delete what was sent");
        }
    }
}
// ANCHOR_END: relay

/// Another relay may hold an event that is due. Looking again at once would only use up the processor.
const SHORTEST_REST: Duration = Duration::from_millis(2);

async fn publish(
    channel: &Channel,
    config: &Config,
    event: &Value,
) -> Result<impl Future<Output = lapin::Result<Confirmation>> + use<>, BrokerError> {
    let exchange = format!("{}events", config.prefix);
    let kind = event["kind"].as_str().unwrap_or_default();
    // 2: on disk. An event that nobody listens to is dropped by the broker, and that is right.
    let properties = BasicProperties::default().with_delivery_mode(2);
    let body = event.to_string();
    let options = BasicPublishOptions::default();
    let (exchange, kind) = (exchange.as_str().into(), kind.into());
    in_time(channel.basic_publish(exchange, kind, options, body.as_bytes(), properties)).await
}

/// Keeps the inbox small.
pub async fn forget(Member { database, .. }: &Member) {
    loop {
        match database.within(async |c| events::forget(c).await).await {
            // There may be more of them.
            Ok(1..) => {}
            Ok(0) | Err(_) => sleep(FORGET_EVERY).await,
        }
    }
}
