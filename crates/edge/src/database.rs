//! How long do we wait for PostgreSQL, and how many calls may run at once?
//!
//! Invariant: no call takes longer than its time-out, not even when packets are lost, and no call leaves a connection
//! behind that would delay a later call.
//!
//! The pool is bb8's, because it connects in tasks of its own. If a call runs out of time while it waits for a new
//! connection, that connection is still made, and the next call uses it. In deadpool and sqlx's own pool each call
//! connects for itself, so after an outage a crowd of calls may never connect: each gives up just before its connection
//! is ready. A test tries our pool and sqlx's behind a slow network, and sqlx's never gets a connection. sqlx's pool
//! also waits, without a limit, for an answer from each connection that a call returns.

use std::{
    fmt, io,
    marker::PhantomData,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bb8::{ErrorSink, ManageConnection, Pool, PooledConnection, QueueStrategy};
use sqlx::{Connection, Execute, Executor, PgConnection, Postgres, postgres::PgConnectOptions};
use tokio::{sync::watch, time::timeout};

/// The limit for making a connection, or the limit of a call if that is longer: later calls may wait for the same
/// connection. Short enough that an attempt whose packets were lost is soon replaced.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The limit for finding out whether a connection is still alive. Enough for a round trip between continents.
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// A connection that was idle for longer is pinged before it is used. Pinging always would cost every call a round
/// trip.
const TRUSTED_FOR: Duration = Duration::from_millis(100);

/// How much a service may ask of its database.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls at the same time. More calls than PostgreSQL has cores make it slower, not faster.
    pub connections: u32,
    /// The limit for one call, from waiting for a free connection to the last row.
    pub timeout: Duration,
    /// The longest pause between two statements of a transaction. After a longer one PostgreSQL assumes that we are
    /// paused or cut off, and releases our locks.
    pub pause: Duration,
}

/// A database, and the connections to it. Its calls fail with an `E`, the service's own error.
pub struct Database<E> {
    pool: Pool<Connector>,
    /// bb8 alone is not fair: a new call may overtake a waiting one. So the calls ask bb8 one at a time, in the order
    /// of their arrival. So bb8 also makes one connection at a time: making many at once would delay the first call.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// When the last failed attempt to connect began.
    refused: watch::Receiver<Instant>,
    /// When a connection was last found dead.
    suspect: Arc<Mutex<Option<Instant>>>,
    timeout: Duration,
    error: PhantomData<fn() -> E>,
}

impl<E: From<sqlx::Error>> Database<E> {
    /// Connects on the first call, so the database need not be running yet. Fails only if the URL is malformed. Must be
    /// called within a tokio runtime.
    pub fn new(url: &str, limits: Limits) -> Result<Self, sqlx::Error> {
        let milliseconds = |limit: Duration| limit.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)?.options([
            // PostgreSQL ends a statement whose caller has given up, also while it waits for a lock.
            ("statement_timeout", milliseconds(limits.timeout)),
            // PostgreSQL releases the locks of a lost client before TCP notices the loss.
            ("idle_in_transaction_session_timeout", milliseconds(limits.pause)),
        ]);
        let (refusals, refused) = watch::channel(Instant::now());
        let pool = Pool::<Connector>::builder()
            .max_size(limits.connections)
            .connection_timeout(limits.timeout)
            // The connection that was used last is the least likely to need a ping.
            .queue_strategy(QueueStrategy::Lifo)
            // We ping after the turn has passed on (see `lives`), so that no other call waits for it.
            .test_on_check_out(false)
            // The waiting call gets the error, and the next call tries again.
            .retry_connection(false)
            .error_sink(Box::new(Refusals(refusals)))
            .build_unchecked(Connector { options, timeout: limits.timeout.max(CONNECT_TIMEOUT) });
        Ok(Self {
            pool,
            turn: Arc::default(),
            refused,
            suspect: Arc::default(),
            timeout: limits.timeout,
            error: PhantomData,
        })
    }

    // ANCHOR: within
    /// Runs the statements on one connection, within the time limit of a call.
    pub async fn within<T>(
        &self,
        statements: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, E> {
        self.lend(async |connection| Ok(statements(connection).await?)).await
    }

    /// Runs one statement and returns how many rows it changed.
    pub async fn execute<'q>(&self, statement: impl Execute<'q, Postgres> + 'q) -> Result<u64, E> {
        let done = self.within(async |connection| connection.execute(statement).await).await?;
        Ok(done.rows_affected())
    }

    /// Runs work that fails with an error of the service.
    ///
    /// Only a call that succeeds returns its connection to the pool. If the call fails, runs out of time, or is dropped
    /// because its client has gone, the connection is closed: an answer to it may still be under way. PostgreSQL rolls
    /// back the open transaction of a closed connection.
    pub async fn lend<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let call = async {
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

    /// The same for work that may also refuse. Its `Err` rolls the transaction back, and is no failure of the database: the
    /// connection stays.
    pub async fn transaction_or_refusal<T, R>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, R>,
    ) -> Result<Result<T, R>, E> {
        self.within(async |connection| {
            let mut transaction = connection.begin().await?;
            let done = work(&mut transaction).await;
            if done.is_ok() {
                transaction.commit().await?;
            } else {
                transaction.rollback().await?;
            }
            Ok(done)
        })
        .await
    }

    /// The connection that was used last, if it still lives, or a new one.
    async fn connection(&self) -> Result<PooledConnection<'_, Connector>, sqlx::Error> {
        loop {
            let mut lent = self.next().await?;
            // Until the call succeeds: it may be dropped at any time.
            lent.is_whole = false;
            if self.lives(&mut lent).await {
                return Ok(lent);
            }
        }
    }

    /// The next connection of the pool.
    async fn next(&self) -> Result<PooledConnection<'_, Connector>, sqlx::Error> {
        let begun = Instant::now();
        let _turn = self.turn.lock().await;
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
            // An attempt that began before this call says nothing about now: ask the pool again, which makes a new one.
            if *refused.borrow() > begun {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            }
        }
    }

    /// Whether the connection can be used.
    async fn lives(&self, lent: &mut Lent) -> bool {
        if lent.rests_since.elapsed() < TRUSTED_FOR {
            return true;
        }
        // A connection that was already idle when another was found dead is taken for dead too. Pinging each one would
        // use up the time for making a new one.
        let suspect = || self.suspect.lock().unwrap_or_else(PoisonError::into_inner);
        if suspect().is_some_and(|found| lent.rests_since < found) {
            return false;
        }
        let lives = matches!(timeout(PING_TIMEOUT, lent.connection.ping()).await, Ok(Ok(())));
        if !lives {
            *suspect() = Some(Instant::now());
        }
        lives
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), E> {
        self.within(async |connection| connection.ping().await).await
    }
}

impl<E> Clone for Database<E> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            turn: Arc::clone(&self.turn),
            refused: self.refused.clone(),
            suspect: Arc::clone(&self.suspect),
            timeout: self.timeout,
            error: PhantomData,
        }
    }
}

/// Without the URL, which contains a password.
impl<E> fmt::Debug for Database<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("state", &self.pool.state()).finish_non_exhaustive()
    }
}

/// Whether the database did not answer, did not answer in time, or refuses to work now. The caller then cannot know
/// whether the statements took effect.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // 08 connection exception, 25006 read-only (after a failover another server is the one to ask), 25P03 idle in a
        // transaction for too long, 53 insufficient resources, 57 operator intervention (shutting down, starting up,
        // statement timeout): PostgreSQL's documentation, appendix A.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "25006", "25P03", "53", "57"].iter().any(|it| code.starts_with(it))
        }),
        _ => false,
    }
}

/// Makes connections.
struct Connector {
    options: PgConnectOptions,
    timeout: Duration,
}

struct Lent {
    connection: PgConnection,
    /// Since when the connection has been idle.
    rests_since: Instant,
    /// No call uses the connection, and no answer to it is under way.
    is_whole: bool,
}

impl Lent {
    fn came_back(&mut self) {
        self.is_whole = true;
        self.rests_since = Instant::now();
    }
}

/// An attempt to connect that failed.
#[derive(Debug)]
struct Refused {
    begun: Instant,
    error: sqlx::Error,
}

impl ManageConnection for Connector {
    type Connection = Lent;
    type Error = Refused;

    async fn connect(&self) -> Result<Lent, Refused> {
        let begun = Instant::now();
        let attempt = PgConnection::connect_with(&self.options);
        let end = timeout(self.timeout, attempt).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let connection = end.map_err(|error| Refused { begun, error })?;
        Ok(Lent { connection, rests_since: Instant::now(), is_whole: true })
    }

    /// Not asked: see [`Database::lives`].
    async fn is_valid(&self, _: &mut Lent) -> Result<(), Refused> {
        Ok(())
    }

    fn has_broken(&self, lent: &mut Lent) -> bool {
        !lent.is_whole
    }
}

/// Tells the waiting call that its connection could not be made. bb8 calls this when it is ready to try again. If the
/// call were told sooner, the next call would wait for this failed attempt too.
#[derive(Clone, Debug)]
struct Refusals(watch::Sender<Instant>);

impl ErrorSink<Refused> for Refusals {
    fn sink(&self, Refused { begun, error }: Refused) {
        tracing::debug!(%error, "a database takes no connection");
        self.0.send_replace(begun);
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<Refused>> {
        Box::new(self.clone())
    }
}
