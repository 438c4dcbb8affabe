//! How are transactions interleaved on purpose? Each session is a real connection; statements are sent in a
//! given order, and one that is blocked is found by asking PostgreSQL whom it waits for.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::{Connection, Either, Executor, PgConnection, Row};
use tokio::task::JoinHandle;

use super::steps::{Outcome, Seen, Step, Trace};

/// A statement that neither ends nor waits for anybody has lost its way.
const PATIENCE: Duration = Duration::from_secs(20);

type Running = JoinHandle<(PgConnection, anyhow::Result<Outcome>)>;

/// One connection.
struct Session {
    pid: i32,
    idle: Option<PgConnection>,
    /// The number of the step that it is at, and the work.
    running: Option<(usize, Running)>,
    failed: bool,
}

/// Three connections for the sessions, and one to look at them.
pub struct Stage {
    observer: PgConnection,
    sessions: Vec<Session>,
}

impl Stage {
    /// Connects.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let (observer, mut sessions) = (PgConnection::connect(url).await?, Vec::new());
        for _ in 0..3 {
            let mut connection = PgConnection::connect(url).await?;
            let pid =
                sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await?;
            hasten_deadlocks(&mut connection).await;
            sessions.push(Session { pid, idle: Some(connection), running: None, failed: false });
        }
        Ok(Self { observer, sessions })
    }

    /// Plays the steps, each session's in one transaction that begins like this, and that they end.
    pub async fn play(&mut self, begin: &'static str, steps: &[Step]) -> anyhow::Result<Trace> {
        let Self { observer, sessions: all } = self;
        let sessions = steps.iter().map(|step| step.session + 1).max().unwrap_or(0);
        for session in &mut all[..sessions] {
            session.failed = false;
            let connection = session.idle.as_mut().context("it has no connection")?;
            connection.execute(begin).await?;
        }
        let unsent = |step: &Step| Seen { step: *step, waited: false, outcome: Outcome::NotSent };
        let mut trace = Trace(steps.iter().map(unsent).collect());
        for (number, step) in steps.iter().enumerate() {
            let deadline = Instant::now() + PATIENCE;
            // A client sends nothing more before it has its answer.
            while all[step.session].running.is_some() {
                settle(all, observer, &mut trace).await?;
                if Instant::now() > deadline {
                    bail!("{} comes after a statement that waits for ever", step.sql);
                }
            }
            let session = &mut all[step.session];
            if session.failed {
                continue;
            }
            let connection = session.idle.take().context("it has no connection")?;
            session.running = Some((number, tokio::spawn(run(connection, step.sql))));
            settle(all, observer, &mut trace).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        while all.iter().any(|session| session.running.is_some()) {
            settle(all, observer, &mut trace).await?;
            if Instant::now() > deadline {
                bail!("a statement waits for ever");
            }
        }
        Ok(trace)
    }
}

/// Returns when every statement that was sent has either ended or waits for another transaction.
async fn settle(
    all: &mut [Session],
    observer: &mut PgConnection,
    trace: &mut Trace,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for session in all {
        loop {
            let Some((number, running)) = session.running.take() else { break };
            if running.is_finished() {
                let (connection, outcome) = running.await?;
                let outcome = outcome?;
                session.failed = matches!(outcome, Outcome::Failed(_));
                trace.0[number].outcome = outcome;
                session.idle = Some(connection);
                break;
            }
            session.running = Some((number, running));
            if waits(observer, session.pid).await? {
                trace.0[number].waited = true;
                break;
            }
            if Instant::now() > deadline {
                bail!("{} neither ends nor waits", trace.0[number].step.sql);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(())
}

/// Whether this backend waits for a lock, and for whom.
async fn waits(observer: &mut PgConnection, pid: i32) -> anyhow::Result<bool> {
    let blocked = sqlx::query_scalar("select cardinality(pg_blocking_pids($1)) > 0");
    Ok(blocked.bind(pid).fetch_one(observer).await?)
}

/// One statement, by the simple protocol: as `psql` would send it. A transaction that failed is rolled back
/// at once, as every client library does it; one that fails at its commit is over.
async fn run(
    mut connection: PgConnection,
    sql: &'static str,
) -> (PgConnection, anyhow::Result<Outcome>) {
    let outcome = match ask(&mut connection, sql).await {
        Ok((rows, written)) => Ok(Outcome::Done(rows, written)),
        Err(sqlx::Error::Database(error)) => {
            let rolled_back = match sql {
                "commit" => Ok(()),
                _ => connection.execute("rollback").await.map(drop),
            };
            let code = error.code().unwrap_or_default().into_owned();
            rolled_back.map(|()| Outcome::Failed(code)).map_err(Into::into)
        }
        Err(error) => Err(error.into()),
    };
    (connection, outcome)
}

async fn ask(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<(Vec<Vec<String>>, u64), sqlx::Error> {
    let (mut rows, mut written) = (Vec::new(), 0);
    let mut answers = sqlx::raw_sql(sql).fetch_many(connection).boxed();
    while let Some(answer) = answers.try_next().await? {
        match answer {
            // Of a `select` it counts the rows that were read.
            Either::Left(done) if rows.is_empty() => written += done.rows_affected(),
            Either::Left(_) => {}
            Either::Right(row) => {
                let cell = |at| row.try_get_raw(at)?.as_str().map(str::to_owned).map_err(decode);
                rows.push((0..row.len()).map(cell).collect::<Result<_, sqlx::Error>>()?);
            }
        }
    }
    drop(answers);
    Ok((rows, written))
}

fn decode(error: sqlx::error::BoxDynError) -> sqlx::Error {
    sqlx::Error::Decode(error)
}

/// PostgreSQL looks for a deadlock when somebody has waited for a second, to spare itself the search. Whoever
/// may change that for the session does; elsewhere it takes the second.
pub async fn hasten_deadlocks(connection: &mut PgConnection) -> bool {
    connection.execute("set deadlock_timeout = '20ms'").await.is_ok()
}

/// The same for all connections to this database that are made from now on.
pub async fn hasten_all_deadlocks(connection: &mut PgConnection) -> bool {
    let alter = r#"
        do $$
        begin
            execute format('alter database %I set deadlock_timeout = ''20ms''', current_database());
        end
        $$
    "#;
    connection.execute(alter).await.is_ok()
}
