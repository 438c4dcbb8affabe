//! How long do we wait for a database?
//!
//! Invariant: no call takes longer than [`TIMEOUT`], not even when packets just vanish, and none leaves a
//! connection behind that would hold up a later one.

use std::{str::FromStr, time::Duration};

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::Error;

/// For one call, from waiting for a free connection to the last row. Leaves room for an answer within
/// a second.
pub const TIMEOUT: Duration = Duration::from_millis(700);
/// For finding out whether a connection is still alive. Enough for a round trip between continents.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that has rested longer is tried before it is used. Trying each would cost each call a
/// round trip.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
const CONNECTIONS: u32 = 16;

/// A database, and the connections to it.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
}

impl Database {
    /// Connects when it is first asked something, so it need not be there yet. Must be called within a
    /// tokio runtime; the error is a malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        // So that a statement nobody waits for any more does not run on.
        let options = PgConnectOptions::from_str(url)?
            .options([("statement_timeout", TIMEOUT.as_millis().to_string())]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(TIMEOUT)
            // sqlx's own test may take all the time there is; a dead connection must leave some for a new one.
            .test_before_acquire(false)
            .before_acquire(|connection, rested| {
                Box::pin(async move {
                    if rested.idle_for > TRUSTED_FOR {
                        let pong = timeout(PING_TIMEOUT, connection.ping()).await;
                        pong.map_err(|elapsed| sqlx::Error::Io(elapsed.into()))??;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    // ANCHOR: within
    /// Runs the statements on one connection, for as long as a call may take.
    pub async fn within<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + TIMEOUT;
        let mut lease = Lease { connection: Some(self.pool.acquire().await?) };
        let answer = match &mut lease.connection {
            Some(connection) => timeout_at(deadline, statements(connection)).await,
            None => return Err(Error::DatabaseAway),
        };
        let answer = answer.map_err(|_| Error::DatabaseAway)??;
        lease.give_back();
        Ok(answer)
    }
    // ANCHOR_END: within

    /// Closes the connections, and waits for it no longer than for anything else.
    pub async fn close(&self) {
        if timeout(TIMEOUT, self.pool.close()).await.is_err() {
            tracing::debug!("a database did not say goodbye");
        }
    }
}

/// A connection that goes back to the pool only after a whole answer. When the call fails, runs out of
/// time, or is dropped because its client has gone, the connection is closed: the answer may still be
/// on its way, and sqlx would wait for it, with no limit, while the connection counts as in use.
struct Lease {
    /// Until it is given back.
    connection: Option<PoolConnection<Postgres>>,
}

impl Lease {
    fn give_back(mut self) {
        if let Some(mut connection) = self.connection.take() {
            // What dropping it does, with a limit: sqlx sends a ping and waits for the answer.
            tokio::spawn(timeout(TIMEOUT, connection.return_to_pool()));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}
