//! Is a relational database "consistent"? It depends on which standby takes over. We let a PostgreSQL lose its primary.

use std::time::Duration;

use lab::{
    Experiment, Lab, Need, Sabotage,
    group::{
        PostgresGroup, ServerGroup,
        postgres::{ASYNCHRONOUS, PRIMARY, SYNCHRONOUS},
        until,
    },
};
use sqlx::{Connection, PgConnection};

use super::recording::Recording;
use crate::{
    checker::check,
    history::{Action, count},
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Writes that are acknowledged while the asynchronous standby is down
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    writes: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "async-failover",
        "When an asynchronous standby that had been down takes over, the writes acknowledged meanwhile are gone, and the \
         history is not linearizable. A synchronous one lacks none; but while it is paused commits wait, and a cancelled \
         wait is answered as committed before the standby has it",
        &["--writes", "10"],
        run,
    )
    .needs(&[Need::Group(PostgresGroup::GROUP)])
    .sabotage(Sabotage {
        file: "src/history.rs",
        replace: "let is_newer = |write: &Operation| source.is_none_or(",
        with: "let is_newer = |write: &Operation| source.is_some_and(",
        check: "the asynchronous standby takes over: reads that miss an acknowledged write",
    })
}

const PATIENCE: Duration = Duration::from_mins(1);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 3, "a primary with two standbys is made");
    let mut group = lab.group::<PostgresGroup>().await?;
    let url = group.members[PRIMARY].url()?;
    let mut primary = PgConnection::connect(&url).await?;
    sqlx::query("create table register (key text primary key, value text not null)")
        .execute(&mut primary)
        .await?;
    lab.progress(1, 3, "the synchronous standby is paused");
    pause_the_standby(&lab, &group, &url, &mut primary).await?;
    lab.progress(2, 3, "the primary is lost");
    until("the table on the asynchronous standby", PATIENCE, async || {
        let mut standby = PgConnection::connect(&group.members[ASYNCHRONOUS].url()?).await?;
        let table = sqlx::query_scalar("select to_regclass('register') is not null");
        let is_there: bool = table.fetch_one(&mut standby).await?;
        Ok(is_there.then_some(()))
    })
    .await?;
    // While it is down, it hears of nothing. The network could as well be slow for as long.
    group.members[ASYNCHRONOUS].kill().await?;
    let writes = Recording::default();
    for n in 0..params.writes {
        let (key, called) = (format!("key-{n}"), writes.tick());
        write(&mut primary, &key).await?;
        writes.note(0, &key, Action::Write("v".to_owned()), called, true);
    }
    group.members[PRIMARY].kill().await?;
    group.members[ASYNCHRONOUS].restart().await?;
    let mut rows = Vec::new();
    for (name, member) in [("synchronous", SYNCHRONOUS), ("asynchronous", ASYNCHRONOUS)] {
        group.promote(member).await?;
        let mut primary = PgConnection::connect(&group.members[member].url()?).await?;
        let reads = writes.branch();
        for n in 0..params.writes {
            let (key, called) = (format!("key-{n}"), reads.tick());
            let value = sqlx::query_scalar("select value from register where key = $1").bind(&key);
            let value = value.fetch_optional(&mut primary).await?;
            reads.note(1, &key, Action::Read(value), called, true);
        }
        let history = reads.history();
        let missed = u32::try_from(count(&history).stale_reads)?;
        let verdict = if check(&history).is_ok() { "linearizable" } else { "not linearizable" };
        let (lost, expected) = match member {
            SYNCHRONOUS => (0, "linearizable"),
            _ => (params.writes, "not linearizable"),
        };
        let who = format!("the {name} standby takes over");
        lab.check_eq(format!("{who}: reads that miss an acknowledged write"), lost, missed);
        lab.check_eq(format!("{who}: the history"), expected, verdict);
        rows.push(vec![name.to_owned(), params.writes.to_string(), missed.to_string()]);
    }
    let columns = ["the new primary was", "acknowledged before", "gone of these"];
    lab.table("One primary is lost", &columns, rows);
    Ok(())
}

/// A write to a key that nobody has written. Returns when PostgreSQL has acknowledged it.
async fn write(connection: &mut PgConnection, key: &str) -> anyhow::Result<()> {
    let write = sqlx::query("insert into register (key, value) values ($1, 'v')").bind(key);
    write.execute(connection).await?;
    Ok(())
}

/// Consistent, and not available: a commit waits for the standby. It is cancelled, and commits all the same.
async fn pause_the_standby(
    lab: &Lab,
    group: &PostgresGroup,
    url: &str,
    primary: &mut PgConnection,
) -> anyhow::Result<()> {
    group.members[SYNCHRONOUS].pause().await?;
    let waiting = {
        let url = url.to_owned();
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await?;
            write(&mut connection, "waits").await
        })
    };
    let pid: i32 = until("the commit to wait", PATIENCE, async || {
        let mut connection = PgConnection::connect(url).await?;
        let pid =
            sqlx::query_scalar("select pid from pg_stat_activity where wait_event = 'SyncRep'");
        Ok(pid.fetch_optional(&mut connection).await?)
    })
    .await?;
    let count = "select count(*) from register where key = 'waits'";
    let before: i64 = sqlx::query_scalar(count).fetch_one(&mut *primary).await?;
    lab.check_eq(
        "the synchronous standby is paused: rows that others see of a commit that waits",
        0,
        before,
    );
    sqlx::query("select pg_cancel_backend($1)").bind(pid).execute(&mut *primary).await?;
    let cancelled = if waiting.await?.is_ok() { "answered as committed" } else { "an error" };
    lab.check_eq("the wait is cancelled: the client is", "answered as committed", cancelled);
    let after: i64 = sqlx::query_scalar(count).fetch_one(&mut *primary).await?;
    lab.check_eq("the wait is cancelled: rows that others see", 1, after);
    // What a commit waits for is that the standby has flushed it.
    let lacks: bool = sqlx::query_scalar(
        r#"
        select flush_lsn < pg_current_wal_flush_lsn()
        from pg_stat_replication
        where sync_state = 'sync'
        "#,
    )
    .fetch_one(&mut *primary)
    .await?;
    lab.check_eq("the wait is cancelled: the standby has not confirmed all of it", true, lacks);
    group.members[SYNCHRONOUS].resume().await
}
