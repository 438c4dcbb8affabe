//! Which worker does which shards, and in which order?
//!
//! Invariant: of one user's messages none is begun before the one ahead of it is settled. The broker
//! gives a queue to one consumer at a time; within the worker a user has one lane; and a worker that gives up a shard
//! finishes what it has begun before the next can have it.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    message::Delivery,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    broker::{Broker, Link},
    error::Error,
    hub::Live,
    notification::Message,
    push::Fcm,
    retry::Backoff,
    store::Store,
};

/// Users of one shard side by side. Those that share a lane wait for each other.
const LANES: usize = 32;
/// With a broker that owes an answer, and with what is under way when its link is lost or the process stops: a push may
/// take ten seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// After so many leases a worker that cannot write down what it has begun gives up its queue all the same.
const HOLD: u32 = 30;
/// Before a queue is consumed again that could not be.
const CONSUME_AGAIN: Duration = Duration::from_millis(250);

/// A worker.
pub struct Worker {
    /// What its claims bear. Nobody else has this name, and this process has no other.
    pub name: String,
    /// The database.
    pub store: Store,
    /// Where its queues are.
    pub broker: Arc<Broker>,
    /// To the sockets.
    pub live: Live,
    /// To the devices, if that is set up.
    pub fcm: Option<Fcm>,
    /// When to try again.
    pub backoff: Backoff,
    /// If it has not been seen for so long, it loses its shards.
    pub lease: Duration,
    /// So many deliveries may be under way.
    pub concurrency: u16,
    /// A place for each of them. One that must be alone takes all of them.
    pub places: Semaphore,
}

impl Worker {
    /// Works until it is told to stop, and finishes what it has begun.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut links = self.broker.consuming.subscribe();
        // The link may be there already.
        links.mark_changed();
        while let Some(Ok(())) = stop.run_until_cancelled(links.changed()).await {
            let link = links.borrow_and_update().clone();
            if let Some(link) = link {
                self.work(link, &stop).await;
            }
        }
        // If this fails, the others notice it a little later.
        let _ = self.store.leave(&self.name).await;
    }

    // ANCHOR: shards
    /// Takes the shards that are its own, as long as the link lives. Every worker works out from the list of those that
    /// live which are its own: worker n of m has the shards s with s % m = n. When the list changes many shards change
    /// hands, which stops each for a moment and moves no data. The list need not be right at every moment: where two
    /// workers want one shard, the broker serves the one that came first, and the other waits.
    async fn work(self: &Arc<Self>, link: Arc<Link>, stop: &CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut mine: HashMap<u16, DropGuard> = HashMap::new();
        let mut ticks = interval(self.lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Instant::now();
        while link.lives() && stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Ok(members) = self.store.beat(&self.name, self.lease.as_secs_f64()).await {
                seen = Instant::now();
                let of = |shard: u16| members.get(usize::from(shard) % members.len().max(1));
                let is_mine = |&shard: &u16| of(shard) == Some(&self.name);
                // Dropped, its guard tells a shard's task to come to an end.
                mine.retain(|shard, _| is_mine(shard));
                for shard in (0..self.broker.topology.shards).filter(is_mine) {
                    mine.entry(shard).or_insert_with(|| self.take(&link, shard, &mut tasks));
                }
            }
            // A queue whose task has panicked is consumed by nobody. It takes the worker with it, and the worker the process.
            while let Some(ended) = tasks.try_join_next() {
                ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            }
            // By now the others have shared out its shards.
            if seen.elapsed() > self.lease {
                mine.clear();
            }
        }
        drop(mine);
        // They end by themselves, unless they wait for the database, or for what a lost connection owes them.
        let _ = timeout(PATIENCE, tasks.join_all()).await;
    }
    // ANCHOR_END: shards

    fn take(self: &Arc<Self>, link: &Arc<Link>, shard: u16, tasks: &mut JoinSet<()>) -> DropGuard {
        let stop = CancellationToken::new();
        let (this, link, stopping) = (Arc::clone(self), Arc::clone(link), stop.clone());
        tasks.spawn(async move {
            // A channel may fail on its own, and so may a lane. Then we take the queue again.
            while link.lives() && !stopping.is_cancelled() {
                if let Err(error) = this.consume(&link, shard, &stopping).await {
                    tracing::warn!(%error, shard, "a queue is not consumed for now");
                    stopping.run_until_cancelled(sleep(CONSUME_AGAIN)).await;
                }
            }
        });
        stop.drop_guard()
    }

    // ANCHOR: consume
    /// Consumes one queue, each user's messages in their order, until it is told to stop.
    async fn consume(
        self: &Arc<Self>,
        link: &Link,
        shard: u16,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let queue = self.broker.topology.queue(shard);
        let channel = link.connection.create_channel().await?;
        // So that the next message is there when a place is free.
        let prefetch = 2 * self.concurrency;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(queue.into(), "".into(), options, none);
        let consuming = timeout(PATIENCE, consuming).await;
        let mut consumer = consuming.map_err(|_| Error::Away("a queue is not there"))??;

        let mut working = JoinSet::new();
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                // The prefetch is the bound: the broker sends no more than that before we acknowledge.
                let (sender, receiver) = mpsc::channel(prefetch.into());
                working.spawn(Arc::clone(self).lane(receiver, stop.clone()));
                sender
            })
            .collect();
        loop {
            let next = tokio::select! {
                next = stop.run_until_cancelled(consumer.next()) => next.flatten(),
                // A lane ends early when the link is lost, or when it panics. Its messages come again.
                _ = working.join_next() => None,
            };
            let Some(Ok(delivery)) = next else { break };
            let _ = lanes[lane_of(&delivery.data)].send(delivery).await;
        }
        drop(lanes);
        // The next worker counts a crash for each job that is still claimed. So we hold the queue until what has begun is
        // written down, however slow the database is. But perhaps only this worker cannot reach it, and the shard waits:
        // after so long, we count as dead.
        let all = async { while working.join_next().await.is_some() {} };
        let _ = timeout(self.lease * HOLD, all).await;
        working.shutdown().await;
        // Not cancelled but closed: what was fetched and not begun goes back to its place in the queue, and the next
        // worker gets the queue only then. A cancelled consumer keeps it, and the next worker goes on behind it.
        Ok(channel.close(200, "goodbye".into()).await?)
    }

    /// One after another.
    async fn lane(self: Arc<Self>, mut lane: mpsc::Receiver<Delivery>, stop: CancellationToken) {
        while let Some(Some(delivery)) = stop.run_until_cancelled(lane.recv()).await {
            if self.deliver(&delivery, &stop).await.is_err() {
                break;
            }
        }
    }
    // ANCHOR_END: consume
}

// ANCHOR: lane_of
/// A user has one lane; what is no message of ours goes into any.
pub fn lane_of(payload: &[u8]) -> usize {
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
    use crate::notification::{JobId, UserId};

    fn lane(user: &str, job: u32, alone: bool) -> usize {
        let user_id = UserId::try_from(user.to_owned()).unwrap();
        let job_id = JobId::try_from(format!("job-{job}")).unwrap();
        let message = Message { job_id, user_id, alone };
        lane_of(&serde_json::to_vec(&message).unwrap())
    }

    #[test]
    fn all_messages_of_a_user_have_one_lane_retries_included() {
        for user in ["ann", "bob", "user-7"] {
            let lanes: HashSet<_> =
                (0..50).flat_map(|job| [false, true].map(|alone| lane(user, job, alone))).collect();
            assert_eq!(lanes.len(), 1, "{user} has lanes {lanes:?}");
        }
    }

    #[test]
    fn users_are_spread_over_the_lanes() {
        let lanes: HashSet<_> = (0..1_000).map(|n| lane(&format!("user-{n}"), 0, false)).collect();
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
