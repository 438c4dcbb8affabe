//! Which worker does which shards, and in which order?
//!
//! Invariant: of one user's messages of one priority, none is begun before the one ahead of it is settled.
//! The broker gives a queue to one consumer at a time; within the worker a user has one lane; and a
//! worker that gives up a shard finishes what it has begun before the next can have it.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    broker::Link,
    deliver::Deliverer,
    error::Error,
    notification::{Message, Priority},
    shard::{Member, assign},
};

/// Users of one shard side by side. Those that share a lane wait for each other.
const LANES: usize = 32;
/// While a server is away a message is not given back: it would only come again, and lose its place.
const SLOWEST_TRY: Duration = Duration::from_secs(2);

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// The shards that this worker may take.
    pub shards: RangeInclusive<u16>,
    /// Deliveries at a time, in all shards; a quarter as many more of high priority.
    pub concurrency: usize,
    /// Messages of a queue that are fetched and not acknowledged yet.
    pub prefetch: u16,
    /// A worker that has not been seen for so long loses its shards.
    pub lease: Duration,
}

/// A worker.
pub struct Worker {
    deliverer: Deliverer,
    config: Config,
    me: Member,
    /// So many may be under way. High priority has places of its own.
    places: HashMap<Priority, Semaphore>,
}

impl Worker {
    /// With a name that nobody else has.
    pub fn new(deliverer: Deliverer, config: Config) -> Self {
        let me = Member { name: uuid::Uuid::new_v4().to_string(), shards: config.shards.clone() };
        let places = HashMap::from([
            (Priority::Normal, Semaphore::new(config.concurrency)),
            (Priority::High, Semaphore::new(config.concurrency.div_ceil(4))),
        ]);
        Self { deliverer, config, me, places }
    }

    /// Works until it is told to stop, and finishes what it has begun.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut links = self.deliverer.broker.links();
        while let Some(Ok(())) = stop.run_until_cancelled(links.changed()).await {
            let link = links.borrow_and_update().clone();
            if let Some(link) = link {
                self.work(link, &stop).await;
            }
        }
        if let Err(error) = self.deliverer.store.leave(&self.me.name).await {
            tracing::debug!(%error, "the others will notice that this worker has left");
        }
    }

    // ANCHOR: shards
    /// Takes the shards that are its own, as long as the link lives. Who they belong to is worked out from the
    /// list of workers that live. It need not be right at every moment: where two workers want one
    /// shard, the broker serves the one that came first, and the other waits.
    async fn work(self: &Arc<Self>, link: Arc<Link>, stop: &CancellationToken) {
        let tasks = TaskTracker::new();
        let mut mine: HashMap<u16, DropGuard> = HashMap::new();
        let mut ticks = interval(self.config.lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Instant::now();
        while link.lives() && stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let lease = self.config.lease.as_secs_f64();
            match self.deliverer.store.beat(&self.me, lease).await {
                Ok(members) => {
                    seen = Instant::now();
                    let owners = assign(self.deliverer.broker.topology().shards, &members);
                    let is_mine = |shard: u16| {
                        owners.get(usize::from(shard)).copied().flatten() == Some(&*self.me.name)
                    };
                    // Dropped, its guard tells a shard's tasks to come to an end.
                    mine.retain(|&shard, _| is_mine(shard));
                    for shard in self.config.shards.clone().filter(|&shard| is_mine(shard)) {
                        mine.entry(shard).or_insert_with(|| self.take(&link, shard, &tasks));
                    }
                }
                Err(error) => tracing::debug!(%error, "this worker cannot say that it lives"),
            }
            // By now the others have shared out its shards.
            if seen.elapsed() > self.config.lease {
                mine.clear();
            }
        }
        drop(mine);
        tasks.close();
        tasks.wait().await;
    }
    // ANCHOR_END: shards

    fn take(self: &Arc<Self>, link: &Arc<Link>, shard: u16, tasks: &TaskTracker) -> DropGuard {
        let stop = CancellationToken::new();
        for priority in Priority::ALL {
            let (this, link, stop) = (Arc::clone(self), Arc::clone(link), stop.clone());
            tasks.spawn(async move {
                // A channel may fail on its own, and then we take the queue again.
                while link.lives() && !stop.is_cancelled() {
                    if let Err(error) = this.consume(&link, shard, priority, &stop).await {
                        tracing::debug!(%error, shard, "a queue is not consumed for now");
                        stop.run_until_cancelled(sleep(Duration::from_millis(250))).await;
                    }
                }
            });
        }
        stop.drop_guard()
    }

    // ANCHOR: consume
    /// Consumes one queue, each user's messages in their order, until it is told to stop.
    async fn consume(
        self: &Arc<Self>,
        link: &Link,
        shard: u16,
        priority: Priority,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let queue = self.deliverer.broker.topology().queue(shard, priority);
        let channel = link.connection.create_channel().await?;
        channel.basic_qos(self.config.prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;

        let mut working = JoinSet::new();
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                // The prefetch is the bound: the broker sends no more than that before we acknowledge.
                let (sender, receiver) = mpsc::channel(self.config.prefetch.into());
                working.spawn(Arc::clone(self).lane(receiver, priority, stop.clone()));
                sender
            })
            .collect();
        while let Some(Some(Ok(delivery))) = stop.run_until_cancelled(consumer.next()).await {
            if lanes[lane_of(&delivery.data)].send(delivery).await.is_err() {
                break;
            }
        }
        drop(lanes);
        working.join_all().await;
        // Not cancelled but closed: what was fetched and not begun goes back to its place in the queue, and
        // the next worker gets the queue only then. A cancelled consumer keeps it, and the next
        // worker goes on behind it.
        Ok(channel.close(200, "goodbye".into()).await?)
    }

    /// One after another.
    async fn lane(
        self: Arc<Self>,
        mut deliveries: mpsc::Receiver<Delivery>,
        priority: Priority,
        stop: CancellationToken,
    ) {
        while let Some(Some(delivery)) = stop.run_until_cancelled(deliveries.recv()).await {
            let place = stop.run_until_cancelled(self.places[&priority].acquire()).await;
            let Some(Ok(_place)) = place else { break };
            let mut wait = Duration::from_millis(50);
            while let Err(error) = self.deliverer.deliver(&delivery.data, priority).await {
                tracing::debug!(%error, "a delivery waits");
                wait = (wait * 2).min(SLOWEST_TRY);
                if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                    return;
                }
            }
            if delivery.ack(BasicAckOptions::default()).await.is_err() {
                // The link is lost. The message comes again, and is found to be settled.
                break;
            }
        }
    }
    // ANCHOR_END: consume
}

// ANCHOR: lane_of
/// A user has one lane; what is no message of ours goes into any.
fn lane_of(payload: &[u8]) -> usize {
    let user = serde_json::from_slice::<Message>(payload).map(|message| message.user_id).ok();
    // Within this process only, so any hash will do.
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0)
}
// ANCHOR_END: lane_of

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ids::UserId;

    fn lane(user: &str, job: u32, generation: i32) -> usize {
        let user_id = UserId::parse(user).unwrap();
        let message = Message { job_id: format!("job-{job}"), user_id, generation };
        lane_of(&serde_json::to_vec(&message).unwrap())
    }

    #[test]
    fn all_messages_of_a_user_have_one_lane_retries_included() {
        for user in ["ann", "bob", "user-7"] {
            let lanes: HashSet<_> =
                (0..50).flat_map(|job| [0, 1, 5].map(|retry| lane(user, job, retry))).collect();
            assert_eq!(lanes.len(), 1, "{user} has lanes {lanes:?}");
        }
    }

    #[test]
    fn users_are_spread_over_the_lanes() {
        let lanes: HashSet<_> = (0..1_000).map(|n| lane(&format!("user-{n}"), 0, 0)).collect();
        assert!(lanes.len() >= LANES / 2, "a thousand users have {} lanes", lanes.len());
        assert!(lanes.iter().all(|lane| *lane < LANES), "{lanes:?}");
    }

    #[test]
    fn what_is_no_message_has_a_lane_too() {
        for payload in [&b""[..], b"\xff\xfe", br#"{"job_id":7}"#] {
            assert!(lane_of(payload) < LANES);
        }
    }
}
