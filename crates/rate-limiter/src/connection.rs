//! How long do we wait for Redis?
//!
//! Invariant: no call takes longer than the time-out, and after one that failed the next has a new connection.
//! The client's own manager keeps a connection that only times out, and one that a firewall has forgotten would stay
//! dead until TCP gives up, a quarter of an hour later.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::time::timeout;

/// One connection that all requests share: they are sent one behind the other, without waiting for answers.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    timeout: Duration,
    /// The connection, and its number.
    current: Mutex<Option<(u64, MultiplexedConnection)>>,
    /// Held by the one who connects. The number is that of the last connection.
    connecting: tokio::sync::Mutex<u64>,
}

impl Connection {
    /// Connects when it is first needed.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self {
            client,
            timeout,
            current: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    // ANCHOR: within
    /// Runs the commands, within the time-out. When it fails nobody knows whether Redis did what it was asked.
    ///
    /// A connection that was found dead is replaced at once, and the commands are sent again: Redis may have done
    /// them already, which costs one client one unit more. That is better than an error for everybody who asks
    /// first after Redis was started anew.
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
                    self.drop_connection(number);
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
        if let (Err(error), Some(number)) = (&answer, used)
            && error.is_io_error()
        {
            self.drop_connection(number);
        }
        answer
    }
    // ANCHOR_END: within

    /// The connection, or a new one. One connects, the others wait for it.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let mut number = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        // The time-out is ours; the client's own would only be a second timer for each call.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        *number += 1;
        *self.lock() = Some((*number, connection.clone()));
        Ok((*number, connection))
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        self.lock().clone()
    }

    /// Unless somebody else has done so, and there is a newer one already.
    fn drop_connection(&self, number: u64) {
        self.lock().take_if(|(current, _)| *current == number);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(u64, MultiplexedConnection)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
