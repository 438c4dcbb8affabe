//! How do events travel between services? RabbitMQ keeps them for each that listens, also while it is away.

use std::time::Duration;

use futures_util::{StreamExt, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::time::{sleep, timeout};

use crate::events::{Carried, Listener, Outbox, POLL, Parties};
use crate::module::Numbered;

/// For each call of the broker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Events that a listener has got and not acknowledged. Without a limit, the broker sends all that has come during an outage.
const PREFETCH: u16 = 64;

/// All that may listen. Their queues are there before they are: what is told meanwhile waits for them.
const LISTENERS: [&str; 2] = ["orders", "recommendations"];

/// Where the events go.
#[derive(Clone, Debug)]
pub struct Broker {
    /// RabbitMQ's address.
    pub url: String,
    /// What the names of the exchange and the queues begin with.
    pub prefix: String,
}

impl Broker {
    /// Carries the events of these, until the broker or a database fails.
    pub async fn carry(&self, parties: &Parties) -> Carried {
        if parties.outboxes.is_empty() && parties.listeners.is_empty() {
            // Pricing and the gateway: they would connect again and again, for nothing.
            return std::future::pending().await;
        }
        let connect = Connection::connect(&self.url, ConnectionProperties::default());
        let connection = timeout(PATIENCE, connect).await??;
        timeout(PATIENCE, self.declare(&connection)).await??;
        let sending = parties.outboxes.iter().map(|outbox| self.send(&connection, outbox));
        let hearing = parties.listeners.iter().map(|listener| self.hear(&connection, listener));
        tokio::try_join!(try_join_all(sending), try_join_all(hearing)).map(drop)
    }

    fn exchange(&self) -> String {
        format!("{}events", self.prefix)
    }

    async fn declare(&self, connection: &Connection) -> lapin::Result<()> {
        let (channel, exchange) = (connection.create_channel().await?, self.exchange());
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default;
        let (exchange, kind) = (exchange.as_str(), ExchangeKind::Fanout);
        channel.exchange_declare(exchange.into(), kind, durable, none()).await?;
        for name in LISTENERS {
            let queue = format!("{}{name}", self.prefix);
            let queue = queue.as_str();
            channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), none()).await?;
            let options = QueueBindOptions::default();
            channel.queue_bind(queue.into(), exchange.into(), "".into(), options, none()).await?;
        }
        Ok(())
    }

    // ANCHOR: relay
    /// Sends what is in an outbox, and deletes it there once the broker has confirmed it.
    async fn send(&self, connection: &Connection, outbox: &Outbox) -> Carried {
        let channel = timeout(PATIENCE, connection.create_channel()).await??;
        timeout(PATIENCE, channel.confirm_select(ConfirmSelectOptions::default())).await??;
        loop {
            let events = outbox.next().await?;
            for event in &events {
                self.publish(&channel, event).await?;
            }
            outbox.forget(&events).await?;
            sleep(POLL).await;
        }
    }
    // ANCHOR_END: relay

    /// Returns when the broker has confirmed it.
    async fn publish(&self, channel: &Channel, event: &Numbered) -> Carried {
        let body = serde_json::to_vec(event)?;
        // 2: on disk.
        let properties = BasicProperties::default().with_delivery_mode(2);
        let (exchange, options) = (self.exchange(), BasicPublishOptions::default());
        let exchange = exchange.as_str().into();
        let sent = channel.basic_publish(exchange, "".into(), options, &body, properties);
        match timeout(PATIENCE, timeout(PATIENCE, sent).await??).await?? {
            Confirmation::Ack(None) => Ok(()),
            _ => Err("the broker did not take an event".into()),
        }
    }

    // ANCHOR: hear
    /// Tells a listener what comes, and acknowledges it when the listener has kept it.
    async fn hear(&self, connection: &Connection, listener: &Listener) -> Carried {
        let channel = timeout(PATIENCE, connection.create_channel()).await??;
        let name = match listener {
            Listener::Orders(_) => LISTENERS[0],
            Listener::Recommendations(_) => LISTENERS[1],
        };
        timeout(PATIENCE, channel.basic_qos(PREFETCH, BasicQosOptions::default())).await??;
        let queue = format!("{}{name}", self.prefix);
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consume = channel.basic_consume(queue.as_str().into(), "".into(), options, none);
        let mut deliveries = timeout(PATIENCE, consume).await??;
        while let Some(delivery) = deliveries.next().await {
            let delivery = delivery?;
            // What is no event would come again and again.
            let Ok(event) = serde_json::from_slice(&delivery.data) else {
                tracing::error!(listener = name, "what came is no event");
                delivery.acker.reject(BasicRejectOptions { requeue: false }).await?;
                continue;
            };
            listener.hear(&event).await?;
            timeout(PATIENCE, delivery.acker.ack(BasicAckOptions::default())).await??;
        }
        Err("a queue is gone".into())
    }
    // ANCHOR_END: hear
}
