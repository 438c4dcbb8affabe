//! Every statement of the service: here those that examine a patient, in `trial` those that apply a remedy and take it back.

mod trial;

use std::{pin::pin, str::FromStr, sync::Arc, time::Duration};

use edge::database::{Database, Limits};
use futures_util::TryStreamExt;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, types::Json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::error::{Error, Result, is_locked, is_not_loaded};
use crate::plan::{Pasted, Plan};
use crate::waits::{Blocker, PAUSE, Waits};
use crate::{patient::Patient, tally::Tally, treatment::Examination};

/// The schema. `lab` runs it before the service starts.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// For a short call of the database.
const LIMITS: Limits =
    Limits { connections: 8, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };
/// Slow queries at the same time. Each takes a core, and a connection that the pool above does not count.
const EXAMINATIONS: usize = 4;
/// How long an examination waits for its turn.
const TURN: Duration = Duration::from_secs(20);
/// A query that reads fewer pages is run once more.
const SMALL: f64 = 100.0;

/// The web site's tables, and what is tried on them.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database<Error>,
    options: PgConnectOptions,
    turns: Arc<Semaphore>,
}

/// A connection of its own for a slow query. When it is dropped, PostgreSQL rolls back what was not committed.
struct Session<'a> {
    connection: PgConnection,
    _turn: SemaphorePermit<'a>,
}

impl Store {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str) -> sqlx::Result<Self> {
        let options = PgConnectOptions::from_str(url)?.options([
            ("application_name", "slow-query"),
            ("statement_timeout", "30s"),
            ("lock_timeout", "2s"),
            // A remedy must not keep its locks when this process is paused or cut off.
            ("idle_in_transaction_session_timeout", "10s"),
        ]);
        let database = Database::new(url, LIMITS)?;
        Ok(Self { database, options, turns: Arc::new(Semaphore::new(EXAMINATIONS)) })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        let connection = PgConnection::connect_with(&self.options);
        timeout(Duration::from_secs(2), connection).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn session(&self) -> Result<Session<'_>> {
        let turn = timeout(TURN, self.turns.acquire()).await;
        let turn = turn.ok().and_then(std::result::Result::ok).ok_or(Error::TOO_SLOW)?;
        Ok(Session { connection: self.connect().await?, _turn: turn })
    }

    /// Makes this many events with their users and sessions, if there are none.
    pub async fn fill_if_empty(&self, events: i64) -> sqlx::Result<()> {
        let mut connection = self.connect().await?;
        execute(&mut connection, "set statement_timeout = 0; set lock_timeout = 0").await?;
        let mut tx = connection.begin().await?;
        // Of two processes that start at once, the second waits, and finds them. A lock on a table would wait for a remedy.
        execute(&mut tx, "select pg_advisory_xact_lock(hashtext('fill'))").await?;
        let empty = "select not exists (select from users)";
        if sqlx::query_scalar(empty).fetch_one(&mut *tx).await? {
            let fill = include_str!("fill.sql").replace(":events", &events.to_string());
            execute(&mut tx, &fill).await?;
        }
        tx.commit().await?;
        // Only this, and no `analyze`: the statistics on `loads` have to stay old.
        execute(&mut connection, "vacuum (skip_locked) users, events, sessions").await
    }

    // ANCHOR: slow
    /// The statements that took most time in all; nothing if this server does not count them. It does if the library
    /// `pg_stat_statements` was loaded when it started, and this database has the extension.
    pub async fn slow(&self) -> Result<Option<Vec<Value>>> {
        let there = "select exists (select from pg_extension where extname = 'pg_stat_statements')";
        let there = sqlx::query_scalar::<_, bool>(there);
        let slow = sqlx::query_scalar::<_, Value>(include_str!("slow.sql"));
        let slow = async |it: &mut PgConnection| {
            if !there.fetch_one(&mut *it).await? {
                return Ok(None);
            }
            match slow.fetch_all(it).await {
                Err(error) if is_not_loaded(&error) => Ok(None),
                statements => statements.map(Some),
            }
        };
        self.database.within(slow).await
    }
    // ANCHOR_END: slow

    /// Runs the patient's query, and changes nothing.
    pub async fn diagnose(&self, patient: &Patient) -> Result<Examination> {
        let mut session = self.session().await?;
        Ok(self.examined(&mut session.connection, patient).await?)
    }

    /// Runs the patient's query in a transaction that is rolled back.
    async fn examined(
        &self,
        connection: &mut PgConnection,
        patient: &Patient,
    ) -> sqlx::Result<Examination> {
        let mut tx = connection.begin().await?;
        let examination = self.examine(&mut tx, patient, &patient.sql, None).await?;
        tx.rollback().await?;
        Ok(examination)
    }

    // ANCHOR: examine
    /// Runs a query in this transaction: for its plan, while another session checks what it waits for, and again for its rows. The
    /// statements are those of our catalogue.
    async fn examine(
        &self,
        tx: &mut PgConnection,
        patient: &Patient,
        sql: &str,
        settings: Option<&str>,
    ) -> sqlx::Result<Examination> {
        let session = Some(include_str!("session.sql"));
        for settings in [session, patient.settings.as_deref(), settings].into_iter().flatten() {
            execute(tx, settings).await?;
        }
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *tx).await?;
        let (explained, waits) = self.watched(pid, explain(&mut *tx, sql)).await;
        let (mut raw, mut plan) = match explained {
            Err(error) if is_locked(&error) && waits.mostly() => {
                return Ok(Examination { waits, ..Examination::default() });
            }
            explained => explained?,
        };
        if plan.root.pages() < SMALL && !waits.mostly() {
            // Some of these pages are of the catalogue, which a session reads once.
            (raw, plan) = explain(&mut *tx, sql).await?;
        }
        let mut tally = Tally::default();
        let mut rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch(tx);
        while let Some(row) = rows.try_next().await? {
            tally.add(patient.ordered, values(&row, &patient.uses)?.into_iter());
            let all = values(&row, &[])?;
            tally.bytes += all.into_iter().flatten().map(<[u8]>::len).sum::<usize>() as u64;
        }
        Ok(Examination { plan: Some(plan), raw, waits, tally })
    }
    // ANCHOR_END: examine

    // ANCHOR: watched
    /// Waits for a query of session `pid`, and looks from another session what it waits for.
    async fn watched<T>(&self, pid: i32, query: impl Future<Output = T>) -> (T, Waits) {
        let (mut query, mut waits) = (pin!(query), Waits::default());
        let mut looks = interval(PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, and a fast query is not looked at.
        looks.tick().await;
        loop {
            tokio::select! {
                biased;
                done = &mut query => return (done, waits),
                _ = looks.tick() => {}
            }
            let blocker = sqlx::query_as::<_, Blocker>(include_str!("waits.sql")).bind(pid);
            let seen: Result<_> =
                self.database.within(async |it| blocker.fetch_optional(it).await).await;
            if let Ok(seen) = seen {
                waits.note(seen);
            }
        }
    }
    // ANCHOR_END: watched
}

/// Runs a query for its plan: as PostgreSQL wrote it, and as we read it.
async fn explain(tx: &mut PgConnection, sql: &str) -> sqlx::Result<(Value, Plan)> {
    let raw = explain_with(tx, "analyze, buffers", sql).await?;
    let read = serde_json::from_value(raw.clone());
    let Pasted(plan) = read.map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok((raw, plan))
}

/// What EXPLAIN with these options says, as PostgreSQL wrote it.
pub(crate) async fn explain_with(
    tx: &mut PgConnection,
    options: &str,
    sql: &str,
) -> sqlx::Result<Value> {
    let explain = AssertSqlSafe(format!("explain ({options}, format json) {sql}"));
    let Json(raw) = sqlx::query_scalar(explain).fetch_one(tx).await?;
    Ok(raw)
}

/// The values of these columns; of all, if none is named.
pub(crate) fn values<'a>(row: &'a PgRow, uses: &[String]) -> sqlx::Result<Vec<Option<&'a [u8]>>> {
    let value = |value: sqlx::postgres::PgValueRef<'a>| value.as_bytes().ok();
    if uses.is_empty() {
        return (0..row.len()).map(|column| row.try_get_raw(column).map(value)).collect();
    }
    uses.iter().map(|column| row.try_get_raw(&**column).map(value)).collect()
}

/// Runs statements of our own, one or more.
pub(crate) async fn execute(connection: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
}
