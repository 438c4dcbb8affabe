//! How does an event get from one service's database into another's, at least once, and count once?
//!
//! It leaves by the outbox, which the change itself has written; it is deleted there when the broker has confirmed it.
//! It arrives with the inbox, which the reaction writes too; only then is it acknowledged. Killed anywhere in between,
//! something is sent twice, and the second time the inbox knows it.

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
};
use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{error::Elapsed, timeout},
};

use super::{
    Config,
    reactions::{Event, Service},
};
use crate::{database::Database, error::Error, store::outbox};

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

/// For connecting, and for the confirmation of an event.
const PATIENCE: Duration = Duration::from_secs(5);
/// Deliveries that may wait here unacknowledged; the rest waits in the queue.
const PREFETCH: u16 = 16;

/// Why the carrying ended.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker went away, or said no.
    #[error("{0}")]
    Broker(#[from] lapin::Error),
    /// It said nothing.
    #[error("no answer in time")]
    TooSlow(#[from] Elapsed),
    /// It could not take an event.
    #[error("an event was not confirmed")]
    Unconfirmed,
    /// It ended the delivery.
    #[error("a queue is gone")]
    QueueGone,
    /// A database is away.
    #[error("{0}")]
    Database(#[from] Error),
}

/// Carries events, to and from all services of this process, until something breaks.
pub async fn carry(config: &Config, services: &[Member]) -> Result<(), BrokerError> {
    let properties = ConnectionProperties::default();
    let connection = timeout(PATIENCE, Connection::connect(&config.amqp, properties)).await??;
    timeout(PATIENCE, declare(&connection.create_channel().await?, &config.prefix)).await??;
    let carriers = services.iter().map(async |member| {
        let inbound = connection.create_channel().await?;
        let outbound = connection.create_channel().await?;
        tokio::try_join!(receive(&inbound, config, member), send(&outbound, config, member))
    });
    try_join_all(carriers).await?;
    Ok(())
}

/// All of it, by everyone: an event for a service that has never run yet waits for it.
async fn declare(channel: &Channel, prefix: &str) -> Result<(), BrokerError> {
    let exchange = format!("{prefix}events");
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, options, none())
        .await?;
    for service in Service::ALL {
        let queue = format!("{prefix}{}", service.name());
        // Replicated where there are several nodes, on disk in any case.
        let mut kind = FieldTable::default();
        kind.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), kind).await?;
        for event in service.listens_to() {
            let options = QueueBindOptions::default();
            channel
                .queue_bind(
                    queue.as_str().into(),
                    exchange.as_str().into(),
                    (*event).into(),
                    options,
                    none(),
                )
                .await?;
        }
    }
    Ok(())
}

async fn receive(
    channel: &Channel,
    config: &Config,
    Member { service, database, filled }: &Member,
) -> Result<(), BrokerError> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let queue = format!("{}{}", config.prefix, service.name());
    let options = BasicConsumeOptions::default();
    let mut deliveries = channel
        .basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())
        .await?;
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
    // Checked as the API checks it: what no statement of ours accepts would be delivered again for ever.
    let event = serde_json::from_slice::<Event>(&delivery.data).ok();
    let Some(event) = event.filter(|event| event.order.clone().parse().is_ok()) else {
        tracing::error!(service = service.name(), "an event that no code of ours wrote");
        delivery.acker.reject(BasicRejectOptions { requeue: false }).await?;
        return Ok(());
    };
    database
        .transaction(async |connection| {
            if outbox::receive(connection, event.id).await?
                && let Some(next) = service.react(connection, &event).await?
            {
                let next = Event::new(next, event.order_id, event.order.clone());
                outbox::put(connection, &next.to_json()).await?;
            }
            Ok(())
        })
        .await?;
    delivery.acker.ack(BasicAckOptions::default()).await?;
    Ok(())
}
// ANCHOR_END: inbox

// ANCHOR: relay
/// Sends what is in the outbox, and deletes it there once the broker has confirmed it.
async fn send(
    channel: &Channel,
    config: &Config,
    Member { database, filled, .. }: &Member,
) -> Result<(), BrokerError> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    loop {
        let events = database.within(async |c| outbox::take(c).await).await?;
        let mut confirmations = Vec::new();
        for (_, event) in &events {
            confirmations.push(publish(channel, config, event).await?);
        }
        for confirmation in confirmations {
            if !matches!(timeout(PATIENCE, confirmation).await??, Confirmation::Ack(None)) {
                return Err(BrokerError::Unconfirmed);
            }
        }
        if events.is_empty() {
            // A time-out is the poll.
            let _ = timeout(config.poll, filled.notified()).await;
        } else {
            let sent: Vec<_> = events.iter().map(|(id, _)| *id).collect();
            database.within(async |c| outbox::delete(c, &sent).await).await?;
        }
    }
}
// ANCHOR_END: relay

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
    Ok(channel
        .basic_publish(exchange.as_str().into(), kind.into(), options, body.as_bytes(), properties)
        .await?)
}
