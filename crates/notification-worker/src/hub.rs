//! Which sockets of this process want to hear of a user?
//!
//! Invariant: a socket that joined has either been told of an entry, or has been told that it has missed
//! something. So it never has to ask on its own, and never waits for what has passed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use redis::aio::PubSub;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{ids::UserId, live::Live, store::Entry};

/// What a socket is told ahead of what its client has taken. When it is full the rest is not kept: the
/// socket reads it from the database when it has sent what it has.
const AHEAD: usize = 64;
/// Joins and leaves that wait to be told to Redis. When it is full, sockets wait before they open.
const WISHES: usize = 1_024;
const RECONNECT: Duration = Duration::from_millis(500);
/// For a connection, and for a subscription.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What a socket is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// This is new.
    Entry(Arc<Entry>),
    /// Something may be: read the stream.
    Look,
}

/// The hub's end of a socket.
struct Listener {
    id: u64,
    queue: mpsc::Sender<Told>,
    missed: Arc<AtomicBool>,
}

/// A socket's end.
pub struct Ear {
    /// What is told.
    pub queue: mpsc::Receiver<Told>,
    /// Whether something was told that the queue had no room for.
    pub missed: Arc<AtomicBool>,
    id: u64,
    user: UserId,
    hub: Arc<Hub>,
}

/// The sockets of this process, by user.
pub struct Hub {
    live: Live,
    listeners: Mutex<HashMap<UserId, Vec<Listener>>>,
    wishes: mpsc::Sender<UserId>,
    next_id: AtomicU64,
}

impl Hub {
    /// No sockets yet.
    pub fn new(live: Live) -> (Arc<Self>, mpsc::Receiver<UserId>) {
        let (wishes, receiver) = mpsc::channel(WISHES);
        let hub = Self { live, listeners: Mutex::default(), wishes, next_id: AtomicU64::new(0) };
        (Arc::new(hub), receiver)
    }

    /// Adds a socket. It is told to look as soon as Redis tells us of its user.
    pub async fn join(self: &Arc<Self>, user: UserId) -> Ear {
        let (sender, queue) = mpsc::channel(AHEAD);
        let missed = Arc::new(AtomicBool::new(false));
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let listener = Listener { id, queue: sender, missed: Arc::clone(&missed) };
        self.listeners().entry(user.clone()).or_default().push(listener);
        let ear = Ear { queue, missed, id, user: user.clone(), hub: Arc::clone(self) };
        // An error means that the hub has stopped, and then the process stops.
        let _ = self.wishes.send(user).await;
        ear
    }

    /// How many sockets there are.
    pub fn sockets(&self) -> usize {
        self.listeners().values().map(Vec::len).sum()
    }

    // ANCHOR: tell_sockets
    /// Tells the sockets of a user, without waiting for any.
    fn tell(&self, user: &UserId, told: &Told) {
        for listener in self.listeners().get(user).into_iter().flatten() {
            if listener.queue.try_send(told.clone()).is_err() {
                // There is something in the queue, so the socket will come by here.
                listener.missed.store(true, Ordering::Release);
            }
        }
    }
    // ANCHOR_END: tell_sockets

    /// Listens to Redis until it is told to stop, with a new connection whenever the old one ends.
    pub async fn run(self: Arc<Self>, mut wishes: mpsc::Receiver<UserId>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let session = async {
                if let Ok(Ok(connection)) = timeout(TIMEOUT, self.live.listen()).await {
                    self.listen(connection, &mut wishes).await;
                } else {
                    tracing::warn!("Redis is away: sockets hear nothing new");
                }
                sleep(RECONNECT).await;
            };
            stop.run_until_cancelled(session).await;
        }
    }

    async fn listen(&self, connection: PubSub, wishes: &mut mpsc::Receiver<UserId>) {
        let (mut sink, mut messages) = connection.split();
        let subscribing = async {
            let all: Vec<_> = self.listeners().keys().cloned().collect();
            for some in all.chunks(500) {
                let channels: Vec<_> = some.iter().map(|user| self.live.channel(user)).collect();
                timeout(TIMEOUT, sink.subscribe(channels)).await??;
                // What was said while nobody listened.
                for user in some {
                    self.tell(user, &Told::Look);
                }
            }
            while let Some(user) = wishes.recv().await {
                let channel = self.live.channel(&user);
                if self.listeners().contains_key(&user) {
                    timeout(TIMEOUT, sink.subscribe(channel)).await??;
                    self.tell(&user, &Told::Look);
                } else {
                    timeout(TIMEOUT, sink.unsubscribe(channel)).await??;
                }
            }
            anyhow::Ok(())
        };
        let telling = async {
            while let Some(message) = messages.next().await {
                let user = self.live.user(message.get_channel_name());
                let entry = serde_json::from_slice(message.get_payload_bytes());
                if let (Some(user), Ok(entry)) = (user, entry) {
                    self.tell(&user, &Told::Entry(Arc::new(entry)));
                } else {
                    tracing::warn!("a message in Redis is none of ours");
                }
            }
        };
        tokio::select! {
            ended = subscribing => tracing::debug!(?ended, "Redis takes no subscriptions"),
            () = telling => tracing::debug!("Redis has ended"),
        }
    }

    /// A panic cannot leave the map half changed, so poison is ignored.
    fn listeners(&self) -> MutexGuard<'_, HashMap<UserId, Vec<Listener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut all = self.hub.listeners();
        let Some(listeners) = all.get_mut(&self.user) else { return };
        listeners.retain(|listener| listener.id != self.id);
        if listeners.is_empty() {
            all.remove(&self.user);
            // If there is no room, we hear of a user whom nobody wants to hear of, until the next connection.
            let _ = self.hub.wishes.try_send(self.user.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> (Arc<Hub>, mpsc::Receiver<UserId>) {
        // Nobody listens there, and nobody asks.
        Hub::new(Live::new("redis://127.0.0.1:1/", "").unwrap())
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn news(position: i64) -> Told {
        let (title, body) = (String::new(), String::new());
        let entry = Entry { position, seq: position, job_id: position.to_string(), title, body };
        Told::Entry(Arc::new(entry))
    }

    fn heard(ear: &mut Ear) -> Vec<i64> {
        let told = std::iter::from_fn(|| ear.queue.try_recv().ok());
        told.map(|told| if let Told::Entry(entry) = told { entry.position } else { 0 }).collect()
    }

    #[tokio::test]
    async fn a_socket_that_takes_nothing_keeps_a_bounded_queue_and_knows_that_it_missed_something()
    {
        let (hub, _wishes) = hub();
        let mut slow = hub.join(user("ann")).await;
        let most = i64::try_from(AHEAD).unwrap();
        for position in 1..=most {
            hub.tell(&user("ann"), &news(position));
        }
        assert!(!slow.missed.load(Ordering::Acquire), "nothing is missed while there is room");
        for position in most + 1..=3 * most {
            hub.tell(&user("ann"), &news(position));
        }
        assert!(slow.missed.load(Ordering::Acquire), "nobody told it that something is missed");
        assert_eq!(heard(&mut slow), (1..=most).collect::<Vec<_>>(), "the first, and no more");
    }

    #[tokio::test]
    async fn every_socket_of_a_user_is_told_beside_one_that_is_slow_and_nobody_elses() {
        let (hub, _wishes) = hub();
        let _slow = hub.join(user("ann")).await;
        let mut quick = hub.join(user("ann")).await;
        let mut other = hub.join(user("bob")).await;
        for position in 1..=200 {
            hub.tell(&user("ann"), &news(position));
            assert_eq!(heard(&mut quick), [position]);
        }
        assert!(!quick.missed.load(Ordering::Acquire), "it has taken everything");
        assert_eq!(heard(&mut other), [0_i64; 0]);
        assert!(!other.missed.load(Ordering::Acquire));
    }
}
