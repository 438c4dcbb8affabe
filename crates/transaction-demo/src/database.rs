//! How is a transaction run, and how long do we wait for it?
//!
//! Invariant: no call takes longer than [`TIMEOUT`], and no transaction of a process that hangs keeps its
//! locks for longer than [`IDLE_TIMEOUT`].
//!
//! The pool is a page of our own. sqlx's waits, with no limit, for a sign of life from each connection that is
//! given back: a round trip more for each call, and with the network gone there is no end to it.

use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::{error::Error, retry::retry};

/// For one call, with all that it waits for: a free connection, other transactions' locks, its own
/// repetitions. Leaves room for an answer within the request's five seconds.
pub const TIMEOUT: Duration = Duration::from_secs(4);
/// Between two statements of a transaction. We take microseconds; longer means that we are paused, or cut off,
/// with both accounts locked. PostgreSQL would wait for hours, and everybody else for PostgreSQL. Shorter than
/// [`TIMEOUT`], so that those who wait for these locks still get them in time.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// For finding out whether a connection is still alive.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that has rested longer is tried before it is used.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// More would make PostgreSQL slower, not faster: it has few cores to run them on.
pub const CONNECTIONS: usize = 16;

/// How well transactions are kept apart: the I of ACID is a choice, and this is the menu.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolation {
    /// Each statement sees what is committed when it begins; PostgreSQL's default, and enough for a
    /// transfer that locks what it reads
    #[default]
    ReadCommitted,
    /// All statements see what was committed when the first began: snapshot isolation
    RepeatableRead,
    /// As if the transactions ran one after another
    Serializable,
}

impl Isolation {
    /// The statement that begins such a transaction. It says which, so that the server's settings cannot
    /// choose another.
    pub fn begin(self) -> &'static str {
        match self {
            Self::ReadCommitted => "begin isolation level read committed",
            Self::RepeatableRead => "begin isolation level repeatable read",
            Self::Serializable => "begin isolation level serializable",
        }
    }
}

/// What is done in one transaction. It may be run several times, so it must do nothing but ask its connection.
///
/// A trait and not an async closure, of which Rust cannot say yet that its future may change threads.
pub trait Work: Sync {
    /// What comes of it.
    type Answer: Send;

    /// Does it. An error rolls everything back, and must be returned: after a failed statement PostgreSQL takes
    /// a `commit` for a `rollback`, without a word.
    fn run(
        &self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

// ANCHOR: attempt
/// Tries the work once. The outer error: nobody knows how it ended, and the connection is not to be used again.
///
/// Plain statements, and not sqlx's `Transaction`, which puts off a rollback until its connection is used
/// again: until then its locks would be held, also while we pause before the next attempt.
pub async fn attempt<W: Work>(
    connection: &mut PgConnection,
    isolation: Isolation,
    work: &W,
) -> Result<Result<W::Answer, Error>, Error> {
    connection.execute(isolation.begin()).await?;
    match work.run(connection).await {
        Ok(answer) => match connection.execute("commit").await.map_err(Error::from) {
            Ok(_) => Ok(Ok(answer)),
            // Refused at the last moment, and rolled back: the connection is as good as before.
            Err(Error::Contended) => Ok(Err(Error::Contended)),
            // Perhaps it is done, perhaps not: the answer was lost.
            Err(error) => Err(error),
        },
        Err(error) => {
            connection.execute("rollback").await?;
            Ok(Err(error))
        }
    }
}
// ANCHOR_END: attempt

/// A database, and the connections to it. Without `Debug`, which would print the password.
#[derive(Clone)]
pub struct Database {
    options: PgConnectOptions,
    /// One for each connection that may be in use.
    permits: Arc<Semaphore>,
    resting: Arc<Mutex<Vec<Resting>>>,
}

/// A connection that is between two transactions.
struct Resting {
    connection: PgConnection,
    since: Instant,
}

impl Database {
    /// Connects when it is first asked something, so it need not be there yet. The error is a malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        let milliseconds = |limit: Duration| limit.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)?.options([
            // A statement nobody waits for any more does not run on, nor wait for a lock.
            ("statement_timeout", milliseconds(TIMEOUT)),
            ("idle_in_transaction_session_timeout", milliseconds(IDLE_TIMEOUT)),
        ]);
        Ok(Self {
            options,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            resting: Arc::default(),
        })
    }

    // ANCHOR: transaction
    /// Does the work as one transaction: all of it, or nothing. Does it again if it was in another's way.
    pub async fn transaction<W: Work>(
        &self,
        isolation: Isolation,
        work: &W,
    ) -> Result<W::Answer, Error> {
        let attempts =
            retry(|| self.lend(async |connection| attempt(connection, isolation, work).await));
        timeout(TIMEOUT, attempts).await.map_err(|_| Error::DatabaseAway)?
    }
    // ANCHOR_END: transaction

    /// Reads, without a transaction round it: each statement is one by itself.
    pub async fn read<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let call = self.lend(async |connection| Ok(Ok(statements(connection).await?)));
        timeout(TIMEOUT, call).await.map_err(|_| Error::DatabaseAway)?
    }

    /// Lends a connection. It comes back if the outer result is good. If not, or if the call is dropped
    /// because its client or its time has gone, it is closed: an answer may still be on its way to it.
    /// PostgreSQL rolls back what a closed connection leaves open.
    async fn lend<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<Result<T, Error>, Error>,
    ) -> Result<T, Error> {
        let _permit = self.permits.acquire().await.map_err(Error::internal)?;
        let mut connection = self.connection().await?;
        let answer = work(&mut connection).await?;
        self.resting().push(Resting { connection, since: Instant::now() });
        answer
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
