//! Is the query slow, or does it wait?

use std::time::Duration;

use conform::expect::json_of;
use lab::harness::{eventually, somebody_waits};
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};
use sqlx::{PgConnection, postgres::PgPoolOptions};

use super::fixture::{Busy, Fixture, WAITING};
use crate::cases::client::{Client, found, pages};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// How long another program keeps its lock while somebody waits, in milliseconds
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u64).range(200..=1_500))]
    hold: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "waiting",
        "A query that waits for a lock reads as few pages as ever, and its plan does not name what it waits for. pg_stat_activity \
         does, and names who holds the lock. No index helps; a read without a lock does, but not behind an ALTER TABLE that waits, \
         nor during VACUUM FULL. Of a query that waits for a full pool PostgreSQL knows nothing",
        &["--hold", "300"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store/waits.sql",
        replace: "wait_event_type = 'Lock'",
        with: "wait_event_type = 'Client'",
        check: "while the row is locked: the first finding",
    })
}

/// What a remedy does while the row is locked. The other program locks the row again as soon as it can, and that may be too
/// late: then this is no trial, and it is repeated.
async fn while_busy(client: &Client, remedy: &str) -> anyhow::Result<String> {
    let count = |run: &Value, field: &str| run["waits"][field].as_u64().unwrap_or_default();
    let waited = |run: &Value| {
        let (waiting, looks) = (count(run, "waiting"), count(run, "looks"));
        waiting >= 2 && waiting * 2 > looks
    };
    for _ in 0..5 {
        let trial = match client.try_out("busy-row", remedy).await {
            Ok(trial) => trial,
            // This is no effect, so the check shows it and fails.
            Err(error) => return Ok(error.to_string()),
        };
        // Was the row locked in the second run too? One of these waits for it, one skips it, and one does not care.
        let locked = match remedy {
            "index-again" => waited(&trial.after),
            "skip-locked" => trial.after["rows"] == 0,
            _ => true,
        };
        if waited(&trial.before) && locked {
            return Ok(trial.effect);
        }
    }
    Ok("nobody waited".to_owned())
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 2_000).await?;
    let (_child, client) = fixture.start().await?;
    let alone = client.diagnose("busy-row").await?;
    lab.check_eq("alone: findings", 0, found(&alone).len());
    lab.progress(1, 6, "a row that another program locks");
    let busy = Busy::start(&fixture, Duration::from_millis(params.hold)).await?;
    let waited = client.diagnose("busy-row").await?;
    let first = found(&waited).into_iter().next().unwrap_or_default();
    lab.check_eq("while the row is locked: the first finding", "waits".to_owned(), first);
    let words = waited["findings"][0]["words"].as_str().unwrap_or_default();
    let names = words.contains("idle in transaction");
    lab.check("while the row is locked: who is to blame", "idle in transaction", words, names);
    let more = pages(&waited) - pages(&alone);
    lab.check("pages that it reads more than alone", "at most 10", more, more <= 10.0);
    let pasted = client.target.post("diagnosis", &json!({ "plan": waited["plan"] })).await?;
    lab.check_eq("findings for its plan alone", 0, found(&json_of(pasted, 200).await?).len());
    let time = |name: &Value| name["milliseconds"].as_f64().unwrap_or(f64::NAN);
    lab.figure("time: while the row is locked ÷ alone", time(&waited) / time(&alone), "");
    lab.progress(2, 6, "remedies");
    for (remedy, expected) in [
        ("index-again", "does_nothing"),
        ("plain-read", "helps"),
        ("skip-locked", "changes_the_answer"),
    ] {
        let effect = while_busy(&client, remedy).await?;
        lab.check_eq(
            format!("while the row is locked: what {remedy} does"),
            expected.to_owned(),
            effect,
        );
    }
    drop(busy);
    lab.progress(3, 6, "a lock on the table");
    table_lock(&lab, &fixture, &client, params.hold).await?;
    lab.progress(4, 6, "VACUUM FULL");
    vacuum_full(&lab, &fixture, &client, params.hold).await?;
    lab.progress(5, 6, "a full pool");
    full_pool(&lab, &fixture).await
}

/// Runs a statement that needs the table for itself and has to wait, and a plain read that comes after it. When both wait, the
/// holder works for a while and then lets them go. Returns what the clinic says of the read, and how many sessions
/// `pg_stat_activity` has shown behind the statement.
async fn read_behind(
    fixture: &Fixture,
    client: &Client,
    hold: u64,
    statement: &'static str,
    (holder, release): (&mut PgConnection, &'static str),
) -> anyhow::Result<(Value, i64)> {
    let mut session = fixture.connect().await?;
    let executed = async {
        sqlx::raw_sql(statement).execute(&mut session).await?;
        anyhow::Ok(())
    };
    let behind = format!(
        "select count(*) from pg_stat_activity as waiting
        join pg_stat_activity as blocker on blocker.pid = any (pg_blocking_pids(waiting.pid))
        where waiting.datname = current_database() and waiting.wait_event_type = 'Lock'
        and blocker.query = '{statement}'"
    );
    let read = async {
        somebody_waits(statement, &fixture.database).await?;
        let released = async {
            eventually("a read waits behind it", async || {
                Ok((fixture.number(WAITING).await? >= 2).then_some(()))
            })
            .await?;
            let sessions = fixture.number(&behind).await?;
            tokio::time::sleep(Duration::from_millis(hold)).await;
            sqlx::raw_sql(release).execute(&mut *holder).await?;
            anyhow::Ok(sessions)
        };
        tokio::try_join!(client.diagnose("by-id"), released)
    };
    let ((), (read, sessions)) = tokio::try_join!(executed, read)?;
    Ok((read, sessions))
}

/// A report is open, `alter table` waits for it, and a reader who would not have to wait for the report waits behind both.
async fn table_lock(
    lab: &Lab,
    fixture: &Fixture,
    client: &Client,
    hold: u64,
) -> anyhow::Result<()> {
    let mut report = fixture.connect().await?;
    sqlx::raw_sql("begin; select count(*) from users").execute(&mut report).await?;
    let alter = "alter table users add column note text";
    let (read, _) = read_behind(fixture, client, hold, alter, (&mut report, "commit")).await?;
    let first = found(&read).into_iter().next().unwrap_or_default();
    let check = "a plain read behind an ALTER TABLE that waits: the first finding";
    lab.check_eq(check, "waits".to_owned(), first);
    let counted = read["milliseconds"].as_f64().unwrap_or(f64::NAN) / hold as f64;
    lab.figure(
        "a locked table: time that EXPLAIN counts ÷ time that it waited, at least",
        counted,
        "",
    );
    Ok(())
}

/// VACUUM FULL writes the table and its indexes anew, and keeps everybody out meanwhile. This table is small, so one of its
/// indexes needs a lock for its only row: building it takes as long as we keep that lock.
async fn vacuum_full(
    lab: &Lab,
    fixture: &Fixture,
    client: &Client,
    hold: u64,
) -> anyhow::Result<()> {
    let index = "create function slowly(id bigint) returns bigint immutable language plpgsql
        as $$ begin perform pg_advisory_xact_lock(1); return id; end $$;
        create index users_slowly on users (slowly(id)) where id = 1";
    fixture.sql(index).await?;
    let mut holder = fixture.connect().await?;
    sqlx::raw_sql("select pg_advisory_lock(1)").execute(&mut holder).await?;
    let release = (&mut holder, "select pg_advisory_unlock_all()");
    let (read, sessions) = read_behind(fixture, client, hold, "vacuum full users", release).await?;
    let first = found(&read).into_iter().next().unwrap_or_default();
    let check = "a plain read during VACUUM FULL: the first finding";
    lab.check_eq(check, "waits".to_owned(), first);
    let check = "during VACUUM FULL: sessions that pg_stat_activity shows behind it";
    lab.check_eq(check, 1, sessions);
    Ok(())
}

/// A query that waits for a connection of its program's pool. PostgreSQL does not know that it is there.
async fn full_pool(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_millis(300));
    let pool = pool.connect(fixture.database.url()).await?;
    let mut held = pool.begin().await?;
    sqlx::raw_sql("select 1").execute(&mut *held).await?;
    let active = "select count(*) from pg_stat_activity where datname = current_database()
        and backend_type = 'client backend' and state = 'active' and pid <> pg_backend_pid()";
    let query = sqlx::raw_sql("select name from users where id = 1").execute(&pool);
    let (query, active) = tokio::join!(query, fixture.number(active));
    let waited = matches!(query, Err(sqlx::Error::PoolTimedOut));
    lab.check_eq("a full pool: the query waits until the pool gives up", true, waited);
    lab.check_eq("a full pool: queries that PostgreSQL sees meanwhile", 0, active?);
    held.rollback().await?;
    Ok(())
}
