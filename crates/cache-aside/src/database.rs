//! How long do we wait for PostgreSQL, and how many may ask it at once?
//!
//! Invariant: no call takes longer than the time-out, not even when packets just vanish, and none leaves a
//! connection behind that would hold up a later one.
//!
//! This is a pool in a page. sqlx's own waits, with no limit, for a sign of life from each connection that
//! is given back: with the network gone, connections count as in use for as long as it is.

use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::error::Error;

/// For finding out whether a connection is still alive. Enough for a round trip between continents.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that has rested longer is tried before it is used. Trying each would cost each call a
/// round trip.
const TRUSTED_FOR: Duration = Duration::from_millis(100);

/// A database, and the connections to it.
#[derive(Clone, Debug)]
pub struct Database {
    options: PgConnectOptions,
    timeout: Duration,
    /// One for each connection that may be in use.
    permits: Arc<Semaphore>,
    resting: Arc<Mutex<Vec<Resting>>>,
}

/// A connection that gave a whole answer and waits for its next call.
#[derive(Debug)]
struct Resting {
    connection: PgConnection,
    since: Instant,
}

impl Database {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, connections: usize, timeout: Duration) -> Result<Self, sqlx::Error> {
        // So that a statement nobody waits for any more does not run on.
        let options = PgConnectOptions::from_str(url)?
            .options([("statement_timeout", timeout.as_millis().to_string())]);
        let permits = Arc::new(Semaphore::new(connections));
        Ok(Self { options, timeout, permits, resting: Arc::default() })
    }

    // ANCHOR: within
    /// Runs the statements on one connection, for as long as a call may take.
    ///
    /// Only a whole answer brings the connection back. When the call fails, runs out of time, or is dropped
    /// because its client has gone, the connection is closed: an answer may still be on its way to it.
    pub async fn within<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let call = async {
            let _permit = self.permits.acquire().await.map_err(Error::internal)?;
            let mut connection = self.connection().await?;
            let answer = statements(&mut connection).await?;
            self.resting().push(Resting { connection, since: Instant::now() });
            Ok(answer)
        };
        timeout(self.timeout, call).await.map_err(|_| Error::DatabaseAway)?
    }
    // ANCHOR_END: within

    /// The connection that was used last, if it still lives, or a new one.
    async fn connection(&self) -> Result<PgConnection, sqlx::Error> {
        loop {
            // A statement of its own: the lock is not held while we wait.
            let last = self.resting().pop();
            let Some(Resting { mut connection, since }) = last else {
                return PgConnection::connect_with(&self.options).await;
            };
            if since.elapsed() < TRUSTED_FOR
                || matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
            {
                return Ok(connection);
            }
            // Those below it have rested even longer. A ping for each would use up the time for a new one.
            self.resting().clear();
        }
    }

    /// A panic cannot leave the list half changed, so poison is ignored.
    fn resting(&self) -> std::sync::MutexGuard<'_, Vec<Resting>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
