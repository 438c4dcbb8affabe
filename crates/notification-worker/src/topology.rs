//! Which queues and exchanges are there, what does each promise, and in which queue is a user?
//!
//! ```text
//! key 0.SHARD.PRIORITY ─▶ (work, topic) ─▶ a quorum queue for each shard and priority
//!                             ▲ when its time is over, with the key it came with
//! key MS.SHARD.PRIORITY ─▶ (delays, topic) ─▶ a quorum queue for each delay step
//! ```

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use sha2::{Digest, Sha256};

use crate::notification::{Priority, UserId};

/// Redeliveries after which the broker itself buries a message. High on purpose: a worker's death counts against every
/// message that it had fetched, begun or not. Our own count takes only those that it had begun. `RabbitMQ` 4 would
/// bury after 20, and 3 never.
const DELIVERY_LIMIT: i64 = 1_000;
/// The dead-letter queue is for people to look at; the database knows every dead job and its failures. So the queue
/// forgets: what is older than a week, and the oldest of more than so many.
const DEAD_KEPT: Duration = Duration::from_hours(7 * 24);
const MOST_DEAD: i64 = 100_000;

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

    /// Where work is published that has to wait.
    pub fn delays(&self) -> String {
        format!("{}.delays", self.prefix)
    }

    /// The dead-letter queue, and the exchange in front of it.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The queue of a shard.
    pub fn queue(&self, shard: u16, priority: Priority) -> String {
        format!("{}.{shard}.{}", self.prefix, priority.word())
    }

    /// The queue that keeps messages for this long.
    pub fn delay(&self, delay_step: Duration) -> String {
        format!("{}.delay.{}", self.prefix, delay_step.as_millis())
    }

    /// The routing key to a shard, directly or by way of a delay.
    pub fn key(&self, delay_step: Option<Duration>, shard: u16, priority: Priority) -> String {
        let milliseconds = delay_step.unwrap_or_default().as_millis();
        format!("{milliseconds}.{shard}.{}", priority.word())
    }

    // ANCHOR: shard_of
    /// The shard of a user: hash % n. All processes must agree on the hash, also those of next year's build: not the
    /// standard library's, which may change. When n changes nearly every user moves; but no data moves with them, and the
    /// queues have to be empty first in any case. A consistent-hash ring would buy nothing here.
    pub fn shard_of(&self, user: &UserId) -> u16 {
        let digest = Sha256::digest(user.as_str());
        let hash = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        u16::try_from(hash % u32::from(self.shards)).unwrap_or(0)
    }
    // ANCHOR_END: shard_of

    // ANCHOR: topology
    /// Declares everything but the delay queues. Declaring again what is there changes nothing; if it is there with
    /// other arguments, that is an error.
    pub async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        for (exchange, kind) in [
            (self.exchange().to_owned(), ExchangeKind::Topic),
            (self.delays(), ExchangeKind::Topic),
            (self.dead(), ExchangeKind::Fanout),
        ] {
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let exchange = exchange.into();
            channel.exchange_declare(exchange, kind, options, FieldTable::default()).await?;
        }
        let kept = [
            ("x-message-ttl", milliseconds(DEAD_KEPT)),
            ("x-max-length", AMQPValue::LongLongInt(MOST_DEAD)),
        ];
        quorum(channel, &self.dead(), kept).await?;
        bind(channel, &self.dead(), &self.dead(), "#").await?;
        for shard in 0..self.shards {
            for priority in Priority::ALL {
                let queue = self.queue(shard, priority);
                let arguments = [
                    // One worker at a time, however many consume: that keeps a user's order.
                    ("x-single-active-consumer", AMQPValue::Boolean(true)),
                    // A full queue refuses the newest message, and does not drop the oldest.
                    ("x-overflow", text("reject-publish")),
                    ("x-max-length", AMQPValue::LongLongInt(self.max_queue.into())),
                    ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
                    ("x-dead-letter-exchange", text(&self.dead())),
                    ("x-dead-letter-strategy", text("at-least-once")),
                ];
                quorum(channel, &queue, arguments).await?;
                let key = format!("*.{shard}.{}", priority.word());
                bind(channel, &queue, self.exchange(), &key).await?;
            }
        }
        Ok(())
    }

    /// Declares the queue for one delay step. One queue for all delays would not do: only its head expires, and a long
    /// wait in front would hold up every short one behind it.
    pub async fn declare_delay(&self, channel: &Channel, step: Duration) -> lapin::Result<()> {
        let arguments = [
            ("x-message-ttl", milliseconds(step)),
            ("x-dead-letter-exchange", text(self.exchange())),
            // Otherwise a broker that dies while it hands a message over loses it. It demands `reject-publish`.
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ];
        quorum(channel, &self.delay(step), arguments).await?;
        bind(channel, &self.delay(step), &self.delays(), &format!("{}.#", step.as_millis())).await
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
    // Or all of them lead on the node that the first process connected to.
    table.insert("x-queue-leader-locator".into(), text("balanced"));
    for (key, value) in arguments {
        table.insert(key.into(), value);
    }
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, table).await?;
    Ok(())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none).await
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn milliseconds(time: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_spread_evenly_over_the_shards() {
        let topology = Topology { prefix: String::new(), shards: 8, max_queue: 1 };
        let mut users = [0; 8];
        for n in 0..8_000 {
            let user = UserId::parse(format!("user-{n}")).unwrap();
            users[usize::from(topology.shard_of(&user))] += 1;
        }
        assert!(users.iter().all(|users| (850..1_150).contains(users)), "{users:?}");
    }
}
