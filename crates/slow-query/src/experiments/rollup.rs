//! What helps a total over all rows, which no filter makes small?

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use super::{Rows, fixture::Fixture, try_out};
use crate::{cases::client::kinds, error::is_locked};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "rollup",
        "A total over all rows reads as many pages with workers as without. An index with all its columns, a materialised view or a \
         table that a trigger keeps reads few. A sample is another answer, the view an old one until it is refreshed, and with the \
         trigger writers wait for each other",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: "set events = it.events + excluded.events",
        with: "set events = excluded.events",
        check: "events that the kept table lacks",
    })
}

/// The events of all kinds, as the remedy `sample` estimates them.
const SAMPLED: &str = "select count(*) * 10 from events tablesample system (10) repeatable (1)";
/// A hundred more events of one kind.
const NEW: i64 = 100;

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let remedies = [
        ("totals", "parallel", "does_nothing"),
        ("totals", "index-all", "helps"),
        ("totals", "materialised", "helps"),
        ("totals", "trigger", "helps"),
        ("totals", "sample", "changes_the_answer"),
    ];
    let trials = try_out(&lab, &client, "Totals over all events", &remedies).await?;
    let workers = kinds(&trials[0].after).iter().any(|kind| kind.starts_with("Gather"));
    lab.check_eq("with workers: their rows are gathered", true, workers);
    let sampled = fixture.number(SAMPLED).await? as f64 / params.rows as f64;
    lab.figure("events by the sample ÷ events", sampled, "");
    let time = |run: &Value| run["milliseconds"].as_f64().unwrap_or(f64::NAN);
    let ratio = |at: usize| time(&trials[at].before) / time(&trials[at].after);
    lab.figure("time: one process ÷ with two workers", ratio(0), "");
    lab.figure("time: all events ÷ an index with all columns", ratio(1), "");
    lab.figure("time: all events ÷ the materialised view", ratio(2), "");
    lab.check_eq("without the trigger: a second writer waits", false, waits(&fixture).await?);
    for remedy in ["materialised", "trigger"] {
        client.treat("totals", remedy, false).await?;
    }
    lab.check_eq("with the trigger: a second writer waits", true, waits(&fixture).await?);
    fixture.sql(&insert(1, NEW)).await?;
    let right = "select count(*) from events where kind = 'click'";
    let right = fixture.number(right).await?;
    let lacks = async |table: &str| {
        let counted = format!("select events from {table} where kind = 'click'");
        anyhow::Ok(right - fixture.number(&counted).await?)
    };
    lab.check_eq("events that the kept table lacks", 0, lacks("totals_kept").await?);
    let old = lacks("totals_materialised").await?;
    lab.check_eq("events that the view lacks before it is refreshed", NEW, old);
    fixture.sql("refresh materialized view totals_materialised").await?;
    let new = lacks("totals_materialised").await?;
    lab.check_eq("events that the view lacks when it is refreshed", 0, new);
    Ok(())
}

/// Clicks with numbers that nobody has yet.
fn insert(first: i64, last: i64) -> String {
    format!(
        "insert into events (id, user_id, kind, url, created_at)
         select 1000000 + n, 1, 'click', '/page', timestamptz '2027-01-01' from generate_series({first}, {last}) as n"
    )
}

/// Whether one new click has to wait for another one that is not committed yet.
async fn waits(fixture: &Fixture) -> anyhow::Result<bool> {
    let (mut first, mut second) = (fixture.pool.begin().await?, fixture.pool.begin().await?);
    sqlx::raw_sql(AssertSqlSafe(insert(1, 1))).execute(&mut *first).await?;
    sqlx::raw_sql("set local lock_timeout = '200ms'").execute(&mut *second).await?;
    let inserted = sqlx::raw_sql(AssertSqlSafe(insert(2, 2))).execute(&mut *second).await;
    let waited = match inserted {
        Ok(_) => false,
        Err(error) if is_locked(&error) => true,
        Err(error) => return Err(error.into()),
    };
    second.rollback().await?;
    first.rollback().await?;
    Ok(waited)
}
