//! How long do we wait for Redis, and who connects?
//!
//! Invariant: no call takes longer than the time-out, and a connection that has failed is not used again.
//!
//! A task of its own connects, and never a request. A request that connects takes its attempt with it when it runs out
//! of time; under load each request behind it has waited as long, and after an outage nobody ever finishes. The client's
//! own `ConnectionManager` has such a task too, but it keeps a connection that only times out, and one that a firewall
//! has forgotten would stay dead until TCP gives up, a quarter of an hour later.

use std::{io, time::Duration};

use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// For one attempt. Its packets may be lost, so the next one must not be far.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// From the beginning of one attempt to the next. A server that is just starting is not hammered, and one that is back
/// is found soon.
const PAUSE: Duration = Duration::from_millis(100);

/// One connection that all requests share: they are sent one behind the other, without waiting for answers.
#[derive(Debug)]
pub struct Connection {
    state: watch::Sender<State>,
    timeout: Duration,
    /// The task that connects. It ends with this.
    _connects: JoinSet<()>,
}

#[derive(Clone, Debug)]
enum State {
    /// The first attempt since the start or since the connection was lost: requests wait for it.
    Connecting,
    /// There is a connection; its number, and it.
    Up(u64, MultiplexedConnection),
    /// The last attempt has failed. Requests do not wait for the next one.
    Away(RedisError),
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
    /// which costs one client one unit more. That is better than an error for everybody who asks first after Redis was
    /// started anew.
    pub async fn within<T, W>(
        &self,
        commands: impl Fn(MultiplexedConnection) -> W,
    ) -> Result<T, RedisError>
    where
        W: Future<Output = Result<T, RedisError>>,
    {
        let mut used = None;
        let call = async {
            let (number, connection) = self.connection().await?;
            used = Some(number);
            match commands(connection).await {
                Err(error) if error.is_connection_dropped() => {
                    self.lost(number);
                    let (number, connection) = self.connection().await?;
                    used = Some(number);
                    commands(connection).await
                }
                answer => answer,
            }
        };
        let answer = timeout(self.timeout, call).await;
        let answer =
            answer.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        // READONLY comes from a primary that has become a replica: the next connection may lead to the new primary.
        let useless = |error: &RedisError| error.is_io_error() || error.code() == Some("READONLY");
        if let (Err(error), Some(number)) = (&answer, used)
            && useless(error)
        {
            self.lost(number);
        }
        answer
    }
    // ANCHOR_END: within

    /// The connection, if there is one or the first attempt makes one.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match known.as_deref() {
            Ok(State::Up(number, connection)) => Ok((*number, connection.clone())),
            Ok(State::Away(error)) => Err(error.clone()),
            Ok(State::Connecting) | Err(_) => {
                Err(io::Error::from(io::ErrorKind::NotConnected).into())
            }
        }
    }

    /// Nobody uses this connection any more. Unless there is a newer one already.
    fn lost(&self, number: u64) {
        self.state.send_if_modified(|state| {
            let current = matches!(state, State::Up(current, _) if *current == number);
            if current {
                *state = State::Connecting;
            }
            current
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
    for number in 0.. {
        let next = Instant::now() + PAUSE;
        let attempt = client.get_multiplexed_async_connection_with_config(&config);
        match timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(Ok(connection)) => {
                state.send_replace(State::Up(number, connection));
                // Fails only when nobody is left who could use a connection.
                let _ = lost.wait_for(|state| matches!(state, State::Connecting)).await;
            }
            Ok(Err(error)) => drop(state.send_replace(State::Away(error))),
            Err(_) => {
                let error = io::Error::from(io::ErrorKind::TimedOut).into();
                state.send_replace(State::Away(error));
            }
        }
        sleep_until(next).await;
    }
}
// ANCHOR_END: stay_connected
