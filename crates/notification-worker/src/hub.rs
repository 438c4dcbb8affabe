//! Act four, sockets. How does a notification get from any worker to a socket, which may hang on any process?
//!
//! Through Redis, which holds nothing that may not be lost: tickets for seconds, and messages in passing. The stream in
//! the database is the truth, and a socket that has missed something reads it there.
//!
//! Invariant: a socket that joined has either been told of an entry, or has been told that it missed something; and if
//! Redis keeps silent about what it lost, the socket looks by itself now and then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use redis::{
    Client,
    aio::{ConnectionManager, ConnectionManagerConfig, PubSub},
};
use tokio::{
    sync::{broadcast, mpsc},
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{error::Error, notification::UserId, store::Entry};

/// What a user's sockets are told ahead of what their clients have taken. More is not kept: a socket that lags behind
/// reads it from the database.
const AHEAD: usize = 16;
/// Sockets that came or went, until Redis is told. When it is full, sockets wait before they open.
const CHANGES: usize = 1_024;
const RECONNECT: Duration = Duration::from_millis(500);
/// For an answer of Redis, and for a connection.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A worker does not wait longer to tell the sockets: they also look by themselves.
const TELL_TIMEOUT: Duration = Duration::from_millis(200);
/// A subscription whose other end has vanished brings nothing and says nothing. So it is pinged.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Redis, as all processes use it.
#[derive(Clone)]
pub struct Live {
    client: Client,
    connection: ConnectionManager,
    prefix: String,
}

impl Live {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str) -> redis::RedisResult<Self> {
        let client = Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_max_delay(TIMEOUT)
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { client, connection, prefix: prefix.to_owned() })
    }

    // ANCHOR: tell
    /// Tells every process that has a socket of this user.
    pub async fn tell(&self, user: &UserId, entry: &Entry) -> Result<(), Error> {
        let text = serde_json::to_string(entry).map_err(Error::internal)?;
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("PUBLISH");
        let told = command.arg(self.channel(user)).arg(text).exec_async(&mut connection);
        Ok(timeout(TELL_TIMEOUT, told).await.map_err(|_| Error::Away("Redis is away"))??)
    }
    // ANCHOR_END: tell

    // ANCHOR: ticket
    /// Puts a ticket down, for so long: 256 random bits that open one stream of this user, once. A browser cannot send a
    /// header with a WebSocket, and URLs end up in logs; this one is worth nothing there.
    pub async fn put_ticket(&self, user: &UserId, seconds: u64) -> Result<String, Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        let ticket: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = redis::cmd("SET");
        command.arg(self.ticket(user, &ticket)).arg(1).arg("EX").arg(seconds);
        command.exec_async(&mut self.connection.clone()).await?;
        Ok(ticket)
    }

    /// Takes a ticket up; whether it was there. GETDEL does both at once: of two who try, one gets it.
    pub async fn take_ticket(&self, user: &UserId, ticket: &str) -> Result<bool, Error> {
        let mut command = redis::cmd("GETDEL");
        command.arg(self.ticket(user, ticket));
        let found: Option<i64> = command.query_async(&mut self.connection.clone()).await?;
        Ok(found.is_some())
    }

    /// The user is a part of the key: the ticket of another user is no ticket.
    fn ticket(&self, user: &UserId, ticket: &str) -> String {
        format!("{}ticket:{user}:{ticket}", self.prefix)
    }
    // ANCHOR_END: ticket

    fn channel(&self, user: &UserId) -> String {
        format!("{}user:{user}", self.prefix)
    }

    /// The user of a channel.
    fn user(&self, channel: &str) -> Option<UserId> {
        let user = channel.strip_prefix(&self.prefix)?.strip_prefix("user:")?;
        UserId::parse(user).ok()
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(redis::cmd("PING").exec_async(&mut self.connection.clone()).await?)
    }
}

/// What a socket is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// This is new.
    Entry(Arc<Entry>),
    /// Something may be new: read the stream.
    Look,
}

/// A socket's end. When it is dropped, the socket has gone.
pub struct Ear {
    /// What is told. If it lags behind, it has missed something, and the stream in the database has it.
    pub told: broadcast::Receiver<Told>,
    user: UserId,
    hub: Arc<Hub>,
}

/// The sockets of this process, by user.
pub struct Hub {
    live: Live,
    users: Mutex<HashMap<UserId, broadcast::Sender<Told>>>,
    /// Users for whom a socket came, or whose last one went.
    subscription_changes: mpsc::Sender<UserId>,
}

impl Hub {
    /// No sockets yet. The receiver is for [`run`](Self::run).
    pub fn new(live: Live) -> (Arc<Self>, mpsc::Receiver<UserId>) {
        let (subscription_changes, receiver) = mpsc::channel(CHANGES);
        (Arc::new(Self { live, users: Mutex::default(), subscription_changes }), receiver)
    }

    /// Adds a socket. It is told to look as soon as Redis tells us of its user.
    pub async fn join(self: &Arc<Self>, user: UserId) -> Ear {
        let new = || broadcast::channel(AHEAD).0;
        let told = self.users().entry(user.clone()).or_insert_with(new).subscribe();
        // An error means that the hub has stopped, and then the process stops.
        let _ = self.subscription_changes.send(user.clone()).await;
        Ear { told, user, hub: Arc::clone(self) }
    }

    /// How many sockets there are.
    pub fn sockets(&self) -> usize {
        self.users().values().map(broadcast::Sender::receiver_count).sum()
    }

    // ANCHOR: tell_sockets
    /// Tells the sockets of a user, without waiting for any: one that lags too far behind loses the oldest of what it
    /// was told, and knows it.
    fn tell(&self, user: &UserId, told: Told) {
        if let Some(sockets) = self.users().get(user) {
            let _ = sockets.send(told);
        }
    }
    // ANCHOR_END: tell_sockets

    /// Listens to Redis until it is told to stop, with a new connection whenever the old one ends.
    pub async fn run(
        self: Arc<Self>,
        mut subscription_changes: mpsc::Receiver<UserId>,
        stop: CancellationToken,
    ) {
        while !stop.is_cancelled() {
            let session = async {
                let connection = timeout(TIMEOUT, self.live.client.get_async_pubsub()).await;
                if let Ok(Ok(connection)) = connection {
                    self.listen(connection, &mut subscription_changes).await;
                }
                tracing::warn!("Redis is away: sockets look by themselves");
                sleep(RECONNECT).await;
            };
            stop.run_until_cancelled(session).await;
        }
    }

    // ANCHOR: listen
    async fn listen(&self, connection: PubSub, subscription_changes: &mut mpsc::Receiver<UserId>) {
        let (mut sink, mut messages) = connection.split();
        let subscribing = async {
            let all: Vec<_> = self.users().keys().cloned().collect();
            for some in all.chunks(500) {
                let channels: Vec<_> = some.iter().map(|user| self.live.channel(user)).collect();
                timeout(TIMEOUT, sink.subscribe(channels)).await??;
                // What was said while nobody listened.
                for user in some {
                    self.tell(user, Told::Look);
                }
            }
            let mut pings = interval(PING_EVERY);
            loop {
                let user = tokio::select! {
                    user = subscription_changes.recv() => user,
                    _ = pings.tick() => {
                        timeout(TIMEOUT, sink.ping::<redis::Value>()).await??;
                        continue;
                    }
                };
                let Some(user) = user else { return anyhow::Ok(()) };
                let channel = self.live.channel(&user);
                if self.users().contains_key(&user) {
                    timeout(TIMEOUT, sink.subscribe(channel)).await??;
                    self.tell(&user, Told::Look);
                } else {
                    timeout(TIMEOUT, sink.unsubscribe(channel)).await??;
                }
            }
        };
        let telling = async {
            while let Some(message) = messages.next().await {
                let user = self.live.user(message.get_channel_name());
                let entry = serde_json::from_slice(message.get_payload_bytes());
                if let (Some(user), Ok(entry)) = (user, entry) {
                    self.tell(&user, Told::Entry(Arc::new(entry)));
                }
            }
        };
        tokio::select! {
            ended = subscribing => tracing::debug!(?ended, "Redis does not answer"),
            () = telling => tracing::debug!("Redis has ended the connection"),
        }
    }
    // ANCHOR_END: listen

    /// A panic cannot leave the map half changed, so poison is ignored.
    fn users(&self) -> MutexGuard<'_, HashMap<UserId, broadcast::Sender<Told>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut users = self.hub.users();
        // Its own receiver is dropped after this.
        if users.get(&self.user).is_some_and(|sockets| sockets.receiver_count() <= 1) {
            users.remove(&self.user);
            // If there is no room, we hear of a user whom nobody wants to hear of, until the next connection.
            let _ = self.hub.subscription_changes.try_send(self.user.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::notification::JobId;

    fn hub() -> (Arc<Hub>, mpsc::Receiver<UserId>) {
        // Nobody listens there, and nobody asks.
        Hub::new(Live::new("redis://127.0.0.1:1/", "").unwrap())
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn new(seq: i64) -> Told {
        let (title, body) = (String::new(), String::new());
        let job_id = JobId::parse(seq.to_string()).unwrap();
        Told::Entry(Arc::new(Entry { seq, job_id, title, body }))
    }

    /// What a socket is told next; nothing if it has missed something.
    fn hears(ear: &mut Ear) -> Option<i64> {
        match ear.told.try_recv() {
            Ok(Told::Entry(entry)) => Some(entry.seq),
            Err(TryRecvError::Lagged(_)) => None,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_socket_that_takes_nothing_keeps_a_bounded_queue_and_knows_that_it_missed_something()
    {
        let (hub, _changes) = hub();
        let mut slow = hub.join(user("ann")).await;
        let most = i64::try_from(AHEAD).unwrap();
        for seq in 1..=3 * most {
            hub.tell(&user("ann"), new(seq));
        }
        assert_eq!(hears(&mut slow), None, "nobody told it that something is missed");
        assert_eq!(hears(&mut slow), Some(2 * most + 1), "the newest, and no more");
    }

    #[tokio::test]
    async fn every_socket_of_a_user_is_told_beside_one_that_is_slow_and_nobody_elses() {
        let (hub, _changes) = hub();
        let _slow = hub.join(user("ann")).await;
        let mut quick = hub.join(user("ann")).await;
        let mut other = hub.join(user("bob")).await;
        for seq in 1..=200 {
            hub.tell(&user("ann"), new(seq));
            assert_eq!(hears(&mut quick), Some(seq));
        }
        assert!(matches!(other.told.try_recv(), Err(TryRecvError::Empty)));
    }

    #[tokio::test]
    async fn the_last_socket_of_a_user_that_goes_leaves_nothing_behind() {
        let (hub, _changes) = hub();
        let (one, two) = (hub.join(user("ann")).await, hub.join(user("ann")).await);
        assert_eq!(hub.sockets(), 2);
        drop(one);
        assert_eq!(hub.sockets(), 1);
        drop(two);
        assert!(hub.users().is_empty());
    }
}
