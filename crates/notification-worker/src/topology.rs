//! Which queues and exchanges are there, and what does each promise?
//!
//! ```text
//! key 0.SHARD.PRIORITY ─▶ (work, topic) ─▶ a quorum queue for each shard and priority
//!                             ▲ when its time is over, with the key it came with
//! key MS.SHARD.PRIORITY ─▶ (delays, topic) ─▶ a quorum queue for each delay
//! ```

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::notification::Priority;

/// Redeliveries after which the broker itself buries a message. Far away on purpose: a worker's death counts
/// against every message that it had fetched, begun or not. Ours counts only those that it had begun.
/// `RabbitMQ` 4 would say 20, and 3 never.
const DELIVERY_LIMIT: i64 = 1_000;

/// Names, numbers and limits.
#[derive(Clone, Debug)]
pub struct Topology {
    /// What every name begins with.
    pub prefix: String,
    /// How many shards there are. All processes must agree.
    pub shards: u16,
    /// A queue that holds so many messages refuses more.
    pub max_queue: u32,
}

impl Topology {
    /// Where work is published.
    pub fn exchange(&self) -> &str {
        &self.prefix
    }

    /// Where work is published that is to wait.
    pub fn delays(&self) -> String {
        format!("{}.delays", self.prefix)
    }

    /// Where the dead go.
    pub fn graveyard(&self) -> String {
        format!("{}.graveyard", self.prefix)
    }

    /// The dead-letter queue.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The queue of a shard.
    pub fn queue(&self, shard: u16, priority: Priority) -> String {
        format!("{}.{shard}.{}", self.prefix, priority.word())
    }

    /// The queue that keeps messages for this long.
    pub fn delay(&self, delay: Duration) -> String {
        format!("{}.delay.{}", self.prefix, delay.as_millis())
    }

    /// The routing key to a shard, by way of a delay or directly.
    pub fn key(&self, delay: Option<Duration>, shard: u16, priority: Priority) -> String {
        let delay = delay.unwrap_or_default().as_millis();
        format!("{delay}.{shard}.{}", priority.word())
    }

    /// Every name that may be declared, for whoever wants to be rid of it all: queues and exchanges.
    pub fn names(&self, delays: impl Iterator<Item = Duration>) -> (Vec<String>, Vec<String>) {
        let shards =
            (0..self.shards).flat_map(|shard| Priority::ALL.map(|it| self.queue(shard, it)));
        let queues = shards.chain(delays.map(|it| self.delay(it))).chain([self.dead()]);
        (queues.collect(), vec![self.exchange().to_owned(), self.delays(), self.graveyard()])
    }

    // ANCHOR: topology
    /// Declares everything but the delay queues. What is there already must be the same, or it is an error.
    pub async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        for (exchange, kind) in [
            (self.exchange().to_owned(), ExchangeKind::Topic),
            (self.delays(), ExchangeKind::Topic),
            (self.graveyard(), ExchangeKind::Fanout),
        ] {
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let exchange = exchange.into();
            channel.exchange_declare(exchange, kind, options, FieldTable::default()).await?;
        }
        quorum(channel, &self.dead(), []).await?;
        bind(channel, &self.dead(), &self.graveyard(), "#").await?;
        for shard in 0..self.shards {
            for priority in Priority::ALL {
                let queue = self.queue(shard, priority);
                let arguments = [
                    // One worker at a time, however many consume: that keeps a user's order.
                    ("x-single-active-consumer", AMQPValue::Boolean(true)),
                    // Full is an error for the publisher, and not for the oldest message.
                    ("x-overflow", text("reject-publish")),
                    ("x-max-length", AMQPValue::LongLongInt(self.max_queue.into())),
                    ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
                    ("x-dead-letter-exchange", text(&self.graveyard())),
                    ("x-dead-letter-strategy", text("at-least-once")),
                ];
                quorum(channel, &queue, arguments).await?;
                let key = format!("*.{shard}.{}", priority.word());
                bind(channel, &queue, self.exchange(), &key).await?;
            }
        }
        Ok(())
    }

    /// Declares the queue for one delay. One queue for all delays would not do: only its head expires, and
    /// a long wait in front would hold up every short one behind it.
    pub async fn declare_delay(&self, channel: &Channel, delay: Duration) -> lapin::Result<()> {
        let (queue, milliseconds) = (self.delay(delay), delay.as_millis());
        let arguments = [
            (
                "x-message-ttl",
                AMQPValue::LongLongInt(i64::try_from(milliseconds).unwrap_or(i64::MAX)),
            ),
            ("x-dead-letter-exchange", text(self.exchange())),
            // Or a broker that dies while it hands a message over loses it; this wants `reject-publish`.
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ];
        quorum(channel, &queue, arguments).await?;
        bind(channel, &queue, &self.delays(), &format!("{milliseconds}.#")).await
    }
    // ANCHOR_END: topology
}

async fn quorum<const N: usize>(
    channel: &Channel,
    name: &str,
    arguments: [(&str, AMQPValue); N],
) -> lapin::Result<()> {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    for (key, value) in arguments {
        table.insert(key.into(), value);
    }
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, table).await?;
    Ok(())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
        .await
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
