//! Act four, sockets. How does a notification get from any worker to a socket, which may hang on any process?
//!
//! Through Redis, which holds nothing that may not be lost: tickets for seconds, and names of users in passing. The
//! stream in the database is the truth. All that a socket is ever told is to look there.
//!
//! Invariant: a socket that joined looks after everything that Redis has told this process of its user; and if Redis
//! keeps silent about what it lost, the socket looks by itself now and then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use redis::{
    Client, Cmd, FromRedisValue, RedisResult,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    sync::watch,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{error::Error, notification::UserId};

const RECONNECT: Duration = Duration::from_millis(500);
/// For an answer of Redis, and for a connection.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A worker does not wait longer to tell the sockets: they also look by themselves.
const TELL_TIMEOUT: Duration = Duration::from_millis(200);
/// A subscription whose other end has vanished brings nothing and says nothing. So it is pinged, and users who have no
/// socket any more are forgotten.
const PING_EVERY: Duration = Duration::from_secs(5);

const TICKET_SECONDS: u64 = 30;

const AWAY: Error = Error::Away("Redis is away");

/// Redis, as all processes use it.
#[derive(Clone)]
pub struct Live {
    client: Client,
    connection: ConnectionManager,
    prefix: String,
}

impl Live {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str) -> RedisResult<Self> {
        let client = Client::open(url)?;
        // Its time-outs are half a second for an answer, and one for a connection.
        let config = ConnectionManagerConfig::new().set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { client, connection, prefix: prefix.to_owned() })
    }

    // ANCHOR: tell
    /// Tells every process that something is new in this user's stream. If Redis is away nobody hears it, and the sockets
    /// look by themselves now and then.
    pub async fn tell(&self, user: &UserId) {
        let told = self.ask::<()>(Cmd::publish(self.channel(), user.as_str()));
        let told = timeout(TELL_TIMEOUT, told).await;
        tracing::trace!(?told, user = user.as_str(), "update");
    }
    // ANCHOR_END: tell

    /// One for all users: each process hears of each. Where that is too much, one for each shard.
    fn channel(&self) -> String {
        format!("{}updates", self.prefix)
    }

    // ANCHOR: ticket
    /// Puts a ticket down, for half a minute: 256 random bits that open one stream of this user, once. A browser cannot send a
    /// header with a WebSocket, and URLs end up in logs; this one is worth nothing there.
    pub async fn put_ticket(&self, user: &UserId) -> Result<String, Error> {
        let ticket = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let () = self.ask(Cmd::set_ex(self.ticket(user, &ticket), 1, TICKET_SECONDS)).await?;
        Ok(ticket)
    }

    /// Takes a ticket up; whether it was there. GETDEL does both at once: of two who try, one gets it.
    pub async fn take_ticket(&self, user: &UserId, ticket: &str) -> Result<bool, Error> {
        let found: Option<i64> = self.ask(Cmd::get_del(self.ticket(user, ticket))).await?;
        Ok(found.is_some())
    }

    /// The user is a part of the key: the ticket of another user is no ticket. No user has a colon in its name.
    fn ticket(&self, user: &UserId, ticket: &str) -> String {
        format!("{}ticket:{}:{ticket}", self.prefix, user.as_str())
    }
    // ANCHOR_END: ticket

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(redis::cmd("PING")).await
    }

    async fn ask<T: FromRedisValue>(&self, question: Cmd) -> Result<T, Error> {
        let mut connection = self.connection.clone();
        let answer: RedisResult<T> = question.query_async(&mut connection).await;
        if answer.as_ref().is_err_and(|error| error.code() == Some("READONLY")) {
            // From a primary that has become a replica. The next connection may lead to the new primary, but the manager
            // connects only when a command finds the old connection closed. QUIT closes it, and PING finds that.
            let _ = redis::pipe().cmd("QUIT").cmd("PING").exec_async(&mut connection).await;
        }
        Ok(answer?)
    }
}

/// The sockets of this process, by user.
pub struct Hub {
    live: Live,
    users: Mutex<HashMap<UserId, watch::Sender<()>>>,
}

impl Hub {
    /// No sockets yet.
    pub fn new(live: Live) -> Self {
        Self { live, users: Mutex::default() }
    }

    /// Adds a socket. What it gets changes when something may be new: however often meanwhile, it is one look. Dropped,
    /// it says that the socket has gone.
    pub fn join(&self, user: UserId) -> watch::Receiver<()> {
        self.users().entry(user).or_default().subscribe()
    }

    /// How many sockets there are.
    pub fn sockets(&self) -> usize {
        self.users().values().map(watch::Sender::receiver_count).sum()
    }

    // ANCHOR: listen
    /// Listens to Redis until it is told to stop, with a new connection whenever the old one ends.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while let Some(ended) = stop.run_until_cancelled(self.listen()).await {
            tracing::warn!(?ended, "Redis is away: sockets look by themselves");
            stop.run_until_cancelled(sleep(RECONNECT)).await;
        }
    }

    async fn listen(&self) -> Result<(), Error> {
        let connecting = timeout(TIMEOUT, self.live.client.get_async_pubsub());
        let (mut sink, mut messages) = connecting.await.map_err(|_| AWAY)??.split();
        timeout(TIMEOUT, sink.subscribe(self.live.channel())).await.map_err(|_| AWAY)??;
        // What was said while nobody listened.
        self.users().values().for_each(|sockets| sockets.send_replace(()));
        let mut pings = interval(PING_EVERY);
        loop {
            tokio::select! {
                message = messages.next() => {
                    self.tell(message.ok_or(AWAY)?.get_payload_bytes());
                }
                _ = pings.tick() => {
                    self.users().retain(|_, sockets| sockets.receiver_count() > 0);
                    timeout(TIMEOUT, sink.ping::<redis::Value>()).await.map_err(|_| AWAY)??;
                }
            }
        }
    }

    /// Tells the sockets of a user to look, without waiting for any.
    fn tell(&self, user: &[u8]) {
        let Ok(user) = UserId::try_from(String::from_utf8_lossy(user).into_owned()) else { return };
        if let Some(sockets) = self.users().get(&user) {
            sockets.send_replace(());
        }
    }
    // ANCHOR_END: listen

    /// A panic cannot leave the map half changed, so poison is ignored.
    fn users(&self) -> MutexGuard<'_, HashMap<UserId, watch::Sender<()>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Hub {
        // Nobody listens there, and nobody asks.
        Hub::new(Live::new("redis://127.0.0.1:1/", "").unwrap())
    }

    fn join(hub: &Hub, user: &str) -> watch::Receiver<()> {
        hub.join(UserId::try_from(user.to_owned()).unwrap())
    }

    /// Whether it is told to look.
    fn hears(updates: &mut watch::Receiver<()>) -> bool {
        let changed = updates.has_changed().unwrap();
        updates.mark_unchanged();
        changed
    }

    #[tokio::test]
    async fn every_socket_of_a_user_is_told_and_nobody_elses() {
        let hub = hub();
        let (mut one, mut two) = (join(&hub, "ann"), join(&hub, "ann"));
        let mut other = join(&hub, "bob");
        hub.tell(b"ann");
        assert!(hears(&mut one) && hears(&mut two) && !hears(&mut other));
        hub.tell(b"nobody");
        hub.tell(b"\xff");
        assert!(!hears(&mut one) && !hears(&mut other));
    }

    #[tokio::test]
    async fn a_socket_that_is_busy_looks_once_for_all_that_it_was_told_meanwhile() {
        let hub = hub();
        let mut slow = join(&hub, "ann");
        for _ in 0..100 {
            hub.tell(b"ann");
        }
        assert!(hears(&mut slow));
        assert!(!hears(&mut slow));
    }

    #[tokio::test]
    async fn a_socket_that_has_gone_is_not_counted() {
        let hub = hub();
        let (one, two) = (join(&hub, "ann"), join(&hub, "ann"));
        assert_eq!(hub.sockets(), 2);
        drop(one);
        assert_eq!(hub.sockets(), 1);
        drop(two);
        assert_eq!(hub.sockets(), 0);
    }
}
