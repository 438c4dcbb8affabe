//! Which worker does which shards, and in which order?
//!
//! Invariant: of one user's messages of one priority, none is begun before the one ahead of it is settled. The broker
//! gives a queue to one consumer at a time; within the worker a user has one lane; and a worker that gives up a shard
//! finishes what it has begun before the next can have it.

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
    store::Member,
    topology::hash,
};

/// Users of one shard side by side. Those that share a lane wait for each other.
const LANES: usize = 32;
/// Before a queue is consumed again that could not be.
const CONSUME_AGAIN: Duration = Duration::from_millis(250);

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
    /// Works when it runs.
    pub fn new(deliverer: Deliverer, config: Config) -> Self {
        let (first, last) = config.shards.clone().into_inner();
        let name = deliverer.worker.clone();
        let me = Member { name, first_shard: first.into(), last_shard: last.into() };
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
    /// Takes the shards that are its own, as long as the link lives. Every worker works out from the list of those that
    /// live which are its own. The list need not be right at every moment: where two workers want one shard, the broker
    /// serves the one that came first, and the other waits.
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
                // A channel may fail on its own, and so may a lane. Then we take the queue again.
                while link.lives() && !stop.is_cancelled() {
                    if let Err(error) = this.consume(&link, shard, priority, &stop).await {
                        tracing::warn!(%error, shard, "a queue is not consumed for now");
                        stop.run_until_cancelled(sleep(CONSUME_AGAIN)).await;
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
        while working.join_next().await.is_some() {}
        // Not cancelled but closed: what was fetched and not begun goes back to its place in the queue, and the next
        // worker gets the queue only then. A cancelled consumer keeps it, and the next worker goes on behind it.
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
            // An error means that we stop. A message that is not acknowledged comes again, to the next worker, and if the
            // link was lost, it is found to be settled.
            if self.deliverer.deliver(&delivery.data, &stop).await.is_err()
                || delivery.ack(BasicAckOptions::default()).await.is_err()
            {
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

// ANCHOR: assign
/// The owner of each shard: rendezvous hashing with bounded loads. Every worker works it out for itself from the same
/// list and comes to the same result. No worker has more than its even share, as far as the workers' ranges allow, and
/// when one leaves, few shards move but its own.
pub fn assign(shards: u16, members: &[Member]) -> Vec<Option<&str>> {
    let mut load = vec![0_usize; members.len()];
    let even = usize::from(shards).div_ceil(members.len().max(1));
    let owner = |shard: u16| {
        let may = |&n: &usize| {
            (members[n].first_shard..=members[n].last_shard).contains(&i32::from(shard))
        };
        let wish = |n: usize| hash(&format!("{} takes {shard}", members[n].name));
        let free = |&n: &usize| load[n] < even;
        let all = || (0..members.len()).filter(may);
        // Where ranges leave a shard to workers that have their share already, the least busy takes it.
        let owner = all()
            .filter(free)
            .max_by_key(|&n| wish(n))
            .or_else(|| all().min_by_key(|&n| (load[n], wish(n))))?;
        load[owner] += 1;
        Some(members[owner].name.as_str())
    };
    (0..shards).map(owner).collect()
}
// ANCHOR_END: assign

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::notification::{JobId, UserId};

    fn lane(user: &str, job: u32, generation: i32) -> usize {
        let user_id = UserId::parse(user).unwrap();
        let job_id = JobId::parse(format!("job-{job}")).unwrap();
        let message = Message { job_id, user_id, generation, alone: false };
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

    fn members(count: usize) -> Vec<Member> {
        let member = |n| Member { name: format!("worker {n}"), first_shard: 0, last_shard: 255 };
        (0..count).map(member).collect()
    }

    #[test]
    fn shards_are_spread_evenly_and_all_have_an_owner() {
        for count in 1..=9 {
            let members = members(count);
            let owners = assign(8, &members);
            for member in &members {
                let share = owners.iter().filter(|owner| **owner == Some(&member.name)).count();
                assert!(share <= 8_usize.div_ceil(count), "{owners:?}");
            }
            assert!(owners.iter().all(Option::is_some));
        }
        assert!(assign(3, &[]).iter().all(Option::is_none));
    }

    #[test]
    fn when_a_worker_leaves_few_shards_move_but_its_own() {
        let all = members(8);
        let before = assign(256, &all);
        for gone in 0..8 {
            let rest: Vec<_> = all.iter().filter(|one| **one != all[gone]).cloned().collect();
            let after = assign(256, &rest);
            let name = Some(all[gone].name.as_str());
            let moved = before.iter().zip(&after).filter(|(was, is)| **was != name && was != is);
            let moved = moved.count();
            // One in five. Counting them off moves six in seven.
            assert!(moved <= 51, "{moved} of 224 moved for nothing");
        }
    }

    #[test]
    fn all_workers_come_to_the_same_end() {
        let mut listed = members(5);
        let one = assign(32, &listed);
        let one: Vec<_> = one.into_iter().map(|owner| owner.map(str::to_owned)).collect();
        listed.reverse();
        let other = assign(32, &listed);
        assert_eq!(one.iter().map(Option::as_deref).collect::<Vec<_>>(), other);
    }

    #[test]
    fn a_worker_gets_only_shards_that_it_may_take() {
        let mut members = members(2);
        (members[0].first_shard, members[0].last_shard) = (0, 1);
        (members[1].first_shard, members[1].last_shard) = (1, 5);
        let owners = assign(8, &members);
        let seen: Vec<_> = owners.iter().map(Option::is_some).collect();
        assert_eq!(seen, [true, true, true, true, true, true, false, false]);
        assert_eq!(owners[0], Some("worker 0"));
        assert!(owners[2..6].iter().all(|owner| *owner == Some("worker 1")));
    }
}
