//! How long do we wait for PostgreSQL, and how many calls may it have at once?
//!
//! Invariant: no call takes longer than its time-out, not even when packets just vanish, and none leaves a
//! connection behind that would hold up a later one.
//!
//! The pool is bb8's, because it connects in tasks of its own. A call that runs out of time while it waits for a
//! new connection does not take the connection with it: the next call finds it. Where each call connects by itself,
//! as with deadpool and sqlx's own pool, a crowd of calls after an outage may connect for ever: each gives up just
//! before its connection is there. sqlx's pool also waits, without a limit, for a sign of life from each connection
//! that is given back.

use std::{
    fmt, io,
    marker::PhantomData,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bb8::{ManageConnection, Pool, PooledConnection, QueueStrategy};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// For a new connection, or as long as a call may take if that is longer: others may be waiting for it by then. Short
/// enough that an attempt whose packets were lost soon makes room for another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts that run out of time before those who wait are told. Those that are refused are told at once.
const ATTEMPTS: u32 = 3;
/// Connections that are made at the same time. To sign in costs both sides some milliseconds of computing; after an
/// outage, a herd would keep the first call waiting for all of them.
const CONNECTING: usize = 4;
/// For finding out whether a connection is still alive. Enough for a round trip between continents.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that has rested longer is tried before it is used. Trying each would cost each call a
/// round trip.
const TRUSTED_FOR: Duration = Duration::from_millis(100);

/// What may be asked of a database.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls at the same time. More than PostgreSQL has cores for make it slower, not faster.
    pub connections: u32,
    /// For one call, from waiting for a free connection to the last row.
    pub timeout: Duration,
    /// Between two statements of a transaction. Longer means that we are paused or cut off, with locks in our hands.
    pub pause: Duration,
}

/// A database, and the connections to it. Its calls fail with an `E`, the service's own error.
pub struct Database<E> {
    pool: Pool<Connector>,
    /// One for each connection. bb8 alone is not fair: a call that comes may overtake one that waits.
    permits: Arc<Semaphore>,
    refused: watch::Receiver<Instant>,
    timeout: Duration,
    error: PhantomData<fn() -> E>,
}

impl<E: From<sqlx::Error>> Database<E> {
    /// Connects when it is first asked something, so the database need not be there yet. The error is a malformed
    /// URL. Must be called within a tokio runtime.
    pub fn new(url: &str, limits: Limits) -> Result<Self, sqlx::Error> {
        let milliseconds = |limit: Duration| limit.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)?.options([
            // A statement that nobody waits for any more does not run on, nor wait for a lock.
            ("statement_timeout", milliseconds(limits.timeout)),
            // The locks of a client that has vanished do not stay until TCP notices.
            ("idle_in_transaction_session_timeout", milliseconds(limits.pause)),
        ]);
        let (refuse, refused) = watch::channel(Instant::now());
        let connector = Connector {
            options,
            timeout: limits.timeout.max(CONNECT_TIMEOUT),
            connecting: Semaphore::new(CONNECTING),
            refuse,
            suspect: Mutex::default(),
        };
        let pool = Pool::builder()
            .max_size(limits.connections)
            .connection_timeout(limits.timeout)
            // The one that was used last is the least likely to need a ping.
            .queue_strategy(QueueStrategy::Lifo)
            // The next call tries again, and those that wait are told.
            .retry_connection(false)
            .build_unchecked(connector);
        let permits = Arc::new(Semaphore::new(limits.connections as usize));
        Ok(Self { pool, permits, refused, timeout: limits.timeout, error: PhantomData })
    }

    // ANCHOR: within
    /// Runs the statements on one connection, for as long as a call may take.
    pub async fn within<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, E> {
        self.lend(async |connection| Ok(statements(connection).await?)).await
    }

    /// Runs work that fails with an error of the service.
    ///
    /// Only good work brings the connection back. When it fails, runs out of time, or is dropped because its client
    /// has gone, the connection is closed: an answer may still be on its way to it. PostgreSQL rolls back what a
    /// closed connection leaves open.
    pub async fn lend<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = async {
            let _permit = self.permits.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
            let mut lent = self.connection().await?;
            let answer = work(&mut lent.connection).await?;
            lent.came_back();
            Ok(answer)
        };
        timeout(self.timeout, call).await.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()))
    }
    // ANCHOR_END: within

    /// Runs the statements as one transaction. When they fail the connection is closed, which undoes them.
    pub async fn transaction<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, E> {
        self.within(async |connection| {
            let mut transaction = connection.begin().await?;
            let answer = statements(&mut transaction).await?;
            transaction.commit().await?;
            Ok(answer)
        })
        .await
    }

    /// The connection that was used last, if it still lives, or a new one.
    async fn connection(&self) -> Result<PooledConnection<'_, Connector>, sqlx::Error> {
        let begun = Instant::now();
        let mut refused = self.refused.clone();
        loop {
            refused.mark_unchanged();
            tokio::select! {
                biased;
                connection = self.pool.get() => {
                    return connection.map_err(|_| sqlx::Error::PoolTimedOut);
                }
                _ = refused.changed() => {}
            }
            // Whoever waits for a connection waits for this one as well as for another. But an attempt from before
            // this call says nothing about now: then the pool is asked anew, and makes another.
            if *refused.borrow() > begun {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            }
        }
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), E> {
        self.within(async |connection| connection.ping().await).await
    }
}

impl<E> Clone for Database<E> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            permits: Arc::clone(&self.permits),
            refused: self.refused.clone(),
            ..*self
        }
    }
}

/// Without the URL, in which there is a password.
impl<E> fmt::Debug for Database<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("state", &self.pool.state()).finish_non_exhaustive()
    }
}

/// Whether the database did not answer, or not in time, or will not now. What it did of what it was asked is then
/// unknown.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // 08 connection exception, 25P03 idle in a transaction for too long, 53 insufficient resources, 57 operator
        // intervention (shutting down, starting up, statement timeout): PostgreSQL's documentation, appendix A.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "25P03", "53", "57"].iter().any(|it| code.starts_with(it))),
        _ => false,
    }
}

/// Makes connections, and knows which of them are good.
struct Connector {
    options: PgConnectOptions,
    timeout: Duration,
    connecting: Semaphore,
    /// When an attempt that failed had begun, for those who wait for it.
    refuse: watch::Sender<Instant>,
    /// When one was last found dead.
    suspect: Mutex<Option<Instant>>,
}

impl Connector {
    /// A connection, or when the attempt that failed had begun.
    async fn sign_in(&self) -> Result<PgConnection, (Instant, sqlx::Error)> {
        let turn = self.connecting.acquire().await;
        let mut begun = Instant::now();
        let _turn = turn.map_err(|_| (begun, sqlx::Error::PoolClosed))?;
        for _ in 0..ATTEMPTS {
            begun = Instant::now();
            let attempt = PgConnection::connect_with(&self.options);
            if let Ok(end) = timeout(self.timeout, attempt).await {
                return end.map_err(|error| (begun, error));
            }
        }
        Err((begun, sqlx::Error::PoolTimedOut))
    }
}

struct Lent {
    connection: PgConnection,
    /// Since when nobody has used it.
    rests_since: Instant,
    /// Nobody uses it, and no answer is on its way to it.
    is_whole: bool,
}

impl Lent {
    fn came_back(&mut self) {
        self.is_whole = true;
        self.rests_since = Instant::now();
    }
}

impl ManageConnection for Connector {
    type Connection = Lent;
    type Error = sqlx::Error;

    async fn connect(&self) -> Result<Lent, sqlx::Error> {
        match self.sign_in().await {
            Ok(connection) => Ok(Lent { connection, rests_since: Instant::now(), is_whole: true }),
            Err((begun, error)) => {
                self.refuse.send_replace(begun);
                Err(error)
            }
        }
    }

    /// Lends it. Until it [came back](Lent::came_back) it counts as broken, so that a call may be dropped at any time.
    async fn is_valid(&self, lent: &mut Lent) -> Result<(), sqlx::Error> {
        lent.is_whole = false;
        if lent.rests_since.elapsed() < TRUSTED_FOR {
            return Ok(());
        }
        // One that has rested since before another was found dead is dead too. A ping for each would use up the
        // time for a new one.
        let suspect = || self.suspect.lock().unwrap_or_else(PoisonError::into_inner);
        if suspect().is_some_and(|found| lent.rests_since < found) {
            return Err(sqlx::Error::WorkerCrashed);
        }
        match timeout(PING_TIMEOUT, lent.connection.ping()).await {
            Ok(Ok(())) => Ok(()),
            dead => {
                *suspect() = Some(Instant::now());
                dead.unwrap_or(Err(sqlx::Error::PoolTimedOut))
            }
        }
    }

    fn has_broken(&self, lent: &mut Lent) -> bool {
        !lent.is_whole
    }
}
