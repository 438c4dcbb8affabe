//! How long do we wait for a database?
//!
//! Invariant: no call takes longer than [`TIMEOUT`], not even when packets just vanish, and none leaves a
//! connection behind that would hold up a later one.
//!
//! This is a pool in a page. sqlx's own waits, with no limit, for a sign of life from each connection that
//! is given back: with the network gone, connections count as in use for as long as it is; with the network
//! there, each call makes two round trips in place of one.

use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::error::Error;

/// For one call, from waiting for a free connection to the last row. Waiting for a hot row counts too.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// Between two statements of a transaction, which we send one right after the other.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// For finding out whether a connection is still alive. Enough for a round trip between continents.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that has rested longer is tried before it is used. Trying each would cost each call a
/// round trip.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// More would make PostgreSQL slower, not faster: it has few cores to run them on.
const CONNECTIONS: usize = 16;

/// A database, and the connections to it.
#[derive(Clone, Debug)]
pub struct Database {
    options: PgConnectOptions,
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
    /// Connects when it is first asked something, so it need not be there yet. The error is a malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        // So that a statement nobody waits for any more does not run on, and the locks of a client that has
        // vanished in the middle of a transaction do not stay until TCP notices.
        let options = PgConnectOptions::from_str(url)?.options([
            ("statement_timeout", TIMEOUT.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", LONGEST_PAUSE.as_millis().to_string()),
        ]);
        Ok(Self {
            options,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            resting: Arc::default(),
        })
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
        timeout(TIMEOUT, call).await.map_err(|_| Error::DatabaseAway)?
    }
    // ANCHOR_END: within

    /// Runs the statements as one transaction. When they fail the connection is closed, which undoes them.
    pub async fn transaction<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        self.within(async |connection| {
            let mut transaction = connection.begin().await?;
            let answer = statements(&mut transaction).await?;
            transaction.commit().await?;
            Ok(answer)
        })
        .await
    }

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

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.within(async |connection| connection.ping().await).await
    }

    /// Closes the connections, and waits for it no longer than for anything else.
    pub async fn close(&self) {
        let resting = std::mem::take(&mut *self.resting());
        let goodbyes = join_all(resting.into_iter().map(|resting| resting.connection.close()));
        if timeout(TIMEOUT, goodbyes).await.is_err() {
            tracing::debug!("a database did not say goodbye");
        }
    }

    /// A panic cannot leave the list half changed, so poison is ignored.
    fn resting(&self) -> std::sync::MutexGuard<'_, Vec<Resting>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
