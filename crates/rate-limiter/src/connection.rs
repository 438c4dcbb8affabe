//! How long do we wait for Redis, and who connects?
//!
//! Invariant: no call takes longer than the time-out, and a connection that has failed is not used again.
//!
//! A task of its own connects, and never a request. If a request connected, its attempt would end when the request runs
//! out of time. Under load each request behind it has waited as long, so after an outage no attempt would ever succeed.
//! The client's own `ConnectionManager` has such a task too, but it keeps a connection that only times out, and one
//! that a firewall has forgotten would stay dead until TCP gives up, a quarter of an hour later.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// For one attempt to connect. Its packets may be lost, so the next attempt must come soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// From the beginning of one attempt to the next. A server that is just starting is not hammered, and one that is back
/// is found soon.
const PAUSE: Duration = Duration::from_millis(100);

/// One connection that all requests share: they are sent one behind the other, without waiting for answers.
#[derive(Debug)]
pub struct Connection {
    state: watch::Sender<State>,
    timeout: Duration,
    /// The task that connects. It ends when this is dropped.
    _connects: JoinSet<()>,
}

#[derive(Clone, Debug)]
enum State {
    /// The first attempt since the start or since the connection was lost: requests wait for it.
    Connecting,
    /// There is a connection.
    Up(Live),
    /// The last attempt has failed. Requests do not wait for the next one.
    Away(RedisError),
}

/// A connection, and when its last answer came.
#[derive(Clone, Debug)]
struct Live {
    redis: MultiplexedConnection,
    answered: Arc<Mutex<Instant>>,
}

impl Live {
    fn answered(&self) -> MutexGuard<'_, Instant> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Must be called within a tokio runtime.
    pub fn new(client: Client, timeout: Duration) -> Self {
        let state = watch::Sender::new(State::Connecting);
        let mut connects = JoinSet::new();
        connects.spawn(stay_connected(client, state.clone()));
        Self { state, timeout, _connects: connects }
    }

    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    // ANCHOR: within
    /// Runs the commands, within the time-out. When it fails nobody knows whether Redis did what it was asked.
    ///
    /// If the connection is found dead, the commands are sent again on the next one: Redis may have done them already,
    /// which costs one client one unit more. That is better than an error for the first clients after a restart of
    /// Redis.
    pub async fn within<T, W>(
        &self,
        commands: impl Fn(MultiplexedConnection) -> W,
    ) -> Result<T, RedisError>
    where
        W: Future<Output = Result<T, RedisError>>,
    {
        let (begun, mut used) = (Instant::now(), None);
        let call = async {
            let live = used.insert(self.connection().await?).clone();
            match commands(live.redis.clone()).await {
                Err(error) if error.is_connection_dropped() => {
                    self.lost(&live);
                    let live = used.insert(self.connection().await?);
                    commands(live.redis.clone()).await
                }
                answer => answer,
            }
        };
        let answer = timeout(self.timeout, call).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed).into()));
        if let Some(live) = used {
            match &answer {
                // Others got answers meanwhile, so it is only slow. A new connection would be no faster.
                Err(error) if error.is_timeout() && *live.answered() > begun => {}
                Err(error) if error.is_io_error() => self.lost(&live),
                // From a primary that has become a replica. The next connection may lead to the new primary.
                Err(error) if error.code() == Some("READONLY") => self.lost(&live),
                Ok(_) | Err(_) => *live.answered() = Instant::now(),
            }
        }
        answer
    }
    // ANCHOR_END: within

    /// The connection, if there is one or the first attempt makes one.
    async fn connection(&self) -> Result<Live, RedisError> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match known.as_deref() {
            Ok(State::Up(live)) => Ok(live.clone()),
            Ok(State::Away(error)) => Err(error.clone()),
            Ok(State::Connecting) | Err(_) => {
                Err(io::Error::from(io::ErrorKind::NotConnected).into())
            }
        }
    }

    /// Takes this connection out of use, unless there is a newer one already.
    fn lost(&self, live: &Live) {
        self.state.send_if_modified(|state| {
            let State::Up(current) = state else { return false };
            let same = Arc::ptr_eq(&current.answered, &live.answered);
            if same {
                *state = State::Connecting;
            }
            same
        });
    }
}

// ANCHOR: stay_connected
/// Connects, waits until the connection is lost, and connects again.
async fn stay_connected(client: Client, state: watch::Sender<State>) {
    // The time-outs are ours; the client's own would only be a second timer for each call.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut lost = state.subscribe();
    loop {
        let next = Instant::now() + PAUSE;
        let attempt = client.get_multiplexed_async_connection_with_config(&config);
        match timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(Ok(redis)) => {
                let answered = Arc::new(Mutex::new(Instant::now()));
                state.send_replace(State::Up(Live { redis, answered }));
                // Fails only when nobody is left who could use a connection.
                let _ = lost.wait_for(|state| matches!(state, State::Connecting)).await;
            }
            Ok(Err(error)) => drop(state.send_replace(State::Away(error))),
            Err(elapsed) => drop(state.send_replace(State::Away(io::Error::from(elapsed).into()))),
        }
        sleep_until(next).await;
    }
}
// ANCHOR_END: stay_connected
