//! Which queues are there, what does each promise, and in which queue is a user?

use std::time::Duration;

use lapin::{
    Channel,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use sha2::{Digest, Sha256};

use crate::notification::UserId;

/// Redeliveries after which the broker itself buries a message. High on purpose: a worker's death counts against every
/// message that it had fetched, begun or not. Our own count takes only those that it had begun. `RabbitMQ` 4 would
/// bury after 20, and 3 never.
const DELIVERY_LIMIT: i64 = 1_000;
/// The dead-letter queue is for people to look at; the database knows every dead job and its failures. So the queue
/// forgets: what is older than a week, and the oldest of more than so many.
const DEAD_KEPT: Duration = Duration::from_hours(7 * 24);
const MOST_DEAD: i64 = 100_000;

/// Names, numbers and limits.
#[derive(clap::Args, Clone, Debug)]
pub struct Topology {
    /// What the names of queues begin with; two databases on one broker need two
    #[arg(long = "queue-prefix", default_value = "worked-answers.notifications")]
    pub prefix: String,
    /// How many shards there are; the same for all processes
    #[arg(long = "shard-count", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: u16,
    /// Messages that a queue holds before calls are refused
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_queue: u32,
}

impl Topology {
    /// The queue of a shard.
    pub fn queue(&self, shard: u16) -> String {
        format!("{}.{shard}", self.prefix)
    }

    /// The dead-letter queue.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
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
    /// Declares every queue. Declaring again what is there changes nothing; if it is there with other arguments, that is
    /// an error. There are no exchanges: the default one knows each queue by its name.
    pub async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let kept = [
            ("x-message-ttl", AMQPValue::LongLongInt(DEAD_KEPT.as_secs().cast_signed() * 1_000)),
            ("x-max-length", AMQPValue::LongLongInt(MOST_DEAD)),
        ];
        quorum(channel, &self.dead(), kept).await?;
        for shard in 0..self.shards {
            let arguments = [
                // One worker at a time, however many consume: that keeps a user's order.
                ("x-single-active-consumer", AMQPValue::Boolean(true)),
                // A full queue refuses the newest message, and does not drop the oldest.
                ("x-overflow", text("reject-publish")),
                ("x-max-length", AMQPValue::LongLongInt(self.max_queue.into())),
                ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&self.dead())),
            ];
            quorum(channel, &self.queue(shard), arguments).await?;
        }
        Ok(())
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
    channel.queue_declare(name.into(), options, table).await.map(drop)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_spread_evenly_over_the_shards() {
        let topology = Topology { prefix: String::new(), shards: 8, max_queue: 1 };
        let mut users = [0; 8];
        for n in 0..8_000 {
            let user = UserId::try_from(format!("user-{n}")).unwrap();
            users[usize::from(topology.shard_of(&user))] += 1;
        }
        assert!(users.iter().all(|users| (850..1_150).contains(users)), "{users:?}");
    }
}
