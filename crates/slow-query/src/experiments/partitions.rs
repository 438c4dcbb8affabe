//! Which queries do partitions help?

use lab::{Experiment, Lab, Sabotage, load::median};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Rows, fixture::Fixture, try_out};
use crate::store::explain_with;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    #[command(flatten)]
    events: Rows,
    /// Partitions of another table, which holds a row for each
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(10..=2_000))]
    partitions: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "partitions",
        "Partitions help a query whose filter is the partition key and has no index. Where there is an index on the key, and for other \
         filters, they do nothing. A lookup by another key asks each partition. Planning opens each of them if the filter is computed \
         (`now() - interval`), and one if it is a literal. DELETE of a day gives nothing back",
        &["--rows", "50000", "--partitions", "200"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/treatment.rs",
        replace: "} else if after >= before * 2.0 {",
        with: "} else if after >= before * 200.0 {",
        check: "what partitions does for event-by-id",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.events.rows).await?;
    let (_child, client) = fixture.start().await?;
    let remedies = [
        ("buyers", "partitions", "helps"),
        ("one-day", "partitions", "does_nothing"),
        ("by-user", "partitions", "does_nothing"),
        ("event-by-id", "partitions", "harms"),
        // For comparison: an index on the same rows.
        ("buyers", "index-purchases", "helps"),
        ("rare-latest", "partitions", "helps"),
        ("rare-latest", "index-imports", "helps"),
    ];
    let title = "Partitions, by kind for buyers and rare-latest, by day for the others";
    let trials = try_out(&lab, &client, title, &remedies).await?;
    let more = |at: usize| {
        let (before, after): (f64, f64) = trials[at].pages();
        after / before
    };
    lab.figure("pages of a lookup by id: with partitions by day ÷ without", more(3), "");
    lab.figure("pages of a day: with partitions by day ÷ with an index", more(1), "");
    lab.figure("pages of the buyers: without partitions by kind ÷ with them", 1.0 / more(0), "");
    lab.progress(1, 2, format!("{} partitions", params.partitions));
    planned(&lab, &fixture, params.partitions).await
}

/// One day of many.
const LITERAL: &str = "select count(*) from logs where at = timestamptz '2026-01-05 00:00+00'";
/// The same day. The sum of a time and an interval depends on the time zone, so the planner does not know the day yet.
const COMPUTED: &str = "select count(*) from logs
    where at = timestamptz '2026-01-05 00:00+00' + interval '0 days'";

/// Tables and partitions that planning this query opened: it keeps a lock on each until the transaction ends.
async fn opened(session: &mut PgConnection, sql: &str) -> anyhow::Result<i64> {
    let mut tx = session.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(format!("explain {sql}"))).execute(&mut *tx).await?;
    let locks =
        "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'relation'
        and relation in (select oid from pg_class where relname like 'logs%')";
    let locks = sqlx::query_scalar(locks).fetch_one(&mut *tx).await?;
    tx.rollback().await?;
    Ok(locks)
}

/// What the planner reads before a query that needs one partition of many.
async fn planned(lab: &Lab, fixture: &Fixture, partitions: i64) -> anyhow::Result<()> {
    let last = partitions - 1;
    fixture
        .sql(&format!(
            "set time zone 'UTC';
            create table logs (at timestamptz not null) partition by range (at);
            do $$ begin for day in 0..{last} loop
                execute format('create table logs_%s partition of logs for values from (%L) to (%L)', day,
                    timestamptz '2026-01-01' + day * interval '1 day', timestamptz '2026-01-02' + day * interval '1 day');
            end loop; end $$;
            insert into logs select timestamptz '2026-01-01' + day * interval '1 day' from generate_series(0, {last}) as day;
            reset time zone"
        ))
        .await?;
    // The first query of a session has the catalogue read.
    let mut session = fixture.connect().await?;
    let alone = "set max_parallel_workers_per_gather = 0; set jit = off";
    sqlx::raw_sql(alone).execute(&mut session).await?;
    let mut plans = explained(&mut session, COMPUTED, 1).await?;
    let pages = |part: &Value| {
        let number = |name: &str| part[name].as_f64().unwrap_or_default();
        number("Shared Hit Blocks") + number("Shared Read Blocks")
    };
    let (planning, running) = (pages(&plans[0]["Planning"]), pages(&plans[0]["Plan"]));
    let expected = format!("at least one for each of {partitions}");
    let check = "pages that are read to plan a query for one partition, first in a session";
    lab.check(check, expected, planning, planning >= partitions as f64);
    lab.check("pages that the query itself reads", "at most 10", running, running <= 10.0);
    let literal = opened(&mut session, LITERAL).await?;
    let check = "tables opened to plan a query for a day that is a literal";
    lab.check(check, "at most 2", literal, literal <= 2);
    let computed = opened(&mut session, COMPUTED).await?;
    let check = "tables opened to plan a query for a day that is computed";
    lab.check(check, format!("at least {partitions}"), computed, computed >= partitions);
    for (what, sql) in [("a day that is computed", COMPUTED), ("a day that is a literal", LITERAL)]
    {
        plans = explained(&mut session, sql, 9).await?;
        let ratio = |plan: &Value| {
            let time = |name: &str| plan[name].as_f64().unwrap_or(f64::NAN);
            time("Planning Time") / time("Execution Time")
        };
        let ratio = median(plans.iter().map(ratio).collect());
        lab.figure(format!("time, for {what}: planning ÷ running"), ratio, "");
    }
    deleted(lab, fixture).await
}

/// The plans of this many runs.
async fn explained(session: &mut PgConnection, sql: &str, runs: u32) -> anyhow::Result<Vec<Value>> {
    let mut plans = Vec::new();
    for _ in 0..runs {
        plans.push(explain_with(session, "analyze, buffers", sql).await?[0].take());
    }
    Ok(plans)
}

/// What it costs to be rid of a day: its rows are deleted, or its partition is dropped.
async fn deleted(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let fill = "insert into logs select timestamptz '2026-01-03 00:00+00' + n * interval '1 second'
        from generate_series(1, 20000) as n";
    fixture.sql(fill).await?;
    let size = "select coalesce(pg_relation_size(to_regclass('logs_2')), 0)";
    let before = fixture.number(size).await?;
    fixture.sql("delete from logs_2").await?;
    let kept = fixture.number(size).await? as f64 / before as f64;
    lab.check("bytes of a day's partition after DELETE ÷ before", "at least 1", kept, kept >= 1.0);
    fixture.sql("drop table logs_2").await?;
    let left = fixture.number(size).await?;
    lab.check_eq("bytes of it after DROP TABLE", 0, left);
    Ok(())
}
