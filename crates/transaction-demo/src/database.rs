//! How is a transaction run, and how long do we wait for it?
//!
//! Invariant: no call takes longer than [`TIMEOUT`], and no transaction of a process that hangs keeps its
//! locks for longer than [`IDLE_TIMEOUT`].

use std::time::Duration;

use edge::database::Limits;
use sqlx::{Executor, PgConnection};
use tokio::time::timeout;

use crate::{error::Error, retry::retry};

/// For one call, with all that it waits for: a free connection, other transactions' locks, its own
/// repetitions. Leaves room for an answer within the request's five seconds.
pub const TIMEOUT: Duration = Duration::from_secs(4);
/// Between two statements of a transaction. We take microseconds; longer means that we are paused, or cut off,
/// with both accounts locked. PostgreSQL would wait for hours, and everybody else for PostgreSQL. Shorter than
/// [`TIMEOUT`], so that those who wait for these locks still get them in time.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// More would make PostgreSQL slower, not faster: it has few cores to run them on.
pub const CONNECTIONS: u32 = 16;

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
/// Tries the work once. The outer error: the connection is not to be used again, and if it was committing, nobody knows
/// how that ended.
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
        // The server is read-only by now, or shuts down. Closing the connection rolls back, and the next one may find
        // another server.
        Err(Error::DatabaseAway) => Err(Error::DatabaseAway),
        Err(error) => {
            connection.execute("rollback").await?;
            Ok(Err(error))
        }
    }
}
// ANCHOR_END: attempt

/// A database, and the connections to it.
#[derive(Clone, Debug)]
pub struct Database {
    connections: edge::database::Database<Error>,
}

impl Database {
    /// Connects when it is first asked something, so it need not be there yet. The error is a malformed URL.
    pub fn new(url: &str) -> Result<Self, sqlx::Error> {
        let limits = Limits { connections: CONNECTIONS, timeout: TIMEOUT, pause: IDLE_TIMEOUT };
        Ok(Self { connections: edge::database::Database::new(url, limits)? })
    }

    // ANCHOR: transaction
    /// Does the work as one transaction: all of it, or nothing. Does it again if it was in another's way.
    pub async fn transaction<W: Work>(
        &self,
        isolation: Isolation,
        work: &W,
    ) -> Result<W::Answer, Error> {
        let attempts = retry(|| async {
            self.connections.lend(async |it| attempt(it, isolation, work).await).await?
        });
        timeout(TIMEOUT, attempts).await.map_err(|_| Error::DatabaseAway)?
    }
    // ANCHOR_END: transaction

    /// Reads, without a transaction round it: each statement is one by itself.
    pub async fn read<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.connections.lend(statements).await
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.connections.ping().await
    }
}
