//! What does it cost to delete a row to which others refer?

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;
use sqlx::types::Json;

use super::fixture::{Fixture, counted};
use crate::index::{Column, Index};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(i64).range(5_000..=5_000_000))]
    rows: i64,
    /// Users who are deleted in one transaction
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    deletions: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "foreign-keys",
        "PostgreSQL makes no index for a foreign key. Without one, each row that is deleted costs a scan of the whole table that \
         refers to it, while its lock is held; with one, it costs a search",
        &["--rows", "10000", "--deletions", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/index.rs",
        replace: "if let Some(condition) = self.condition {",
        with: "if let Some(condition) = self.condition.or(Some(Condition::Active)) {",
        check: "with an index: rows that are read for the deletions",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let Params { rows, deletions } = params;
    let fixture = Fixture::of(&lab, rows).await?;
    // Each of these was referred by one of the first hundred. The last ones are referred to by nobody.
    fixture
        .sql("update users set referred_by = id % 100 + 1 where id > 100 and id % 10 = 0")
        .await?;
    fixture.sql("vacuum analyze users").await?;
    let mut seen = Vec::new();
    for (n, way) in (0_u32..).zip(["without an index", "with an index"]) {
        lab.progress(n.into(), 2, way);
        if n == 1 {
            fixture.build("idx_referred_by", &Index::on(&[Column::ReferredBy])).await?;
        }
        let last = rows - i64::from(n) * deletions;
        seen.push(delete(&fixture, last - deletions, last).await?);
    }
    let cells = |(read, ms): &(i64, f64)| vec![read.to_string(), format!("{ms:.2}")];
    let table = ["without an index", "with an index"].into_iter().zip(&seen);
    let table = table.map(|(way, seen)| [vec![way.to_owned()], cells(seen)].concat());
    let columns =
        ["way", "rows that were read one after another", "ms that the rows were locked for it"];
    lab.table(
        format!("{deletions} users to whom nobody refers are deleted"),
        &columns,
        table.collect(),
    );
    let [(scanned, slow), (searched, quick)] = seen[..] else { return Ok(()) };
    let all = deletions * (rows - deletions);
    let check = "without an index: rows that are read for the deletions";
    lab.check_eq(check, all, scanned);
    lab.check_eq("with an index: rows that are read for the deletions", 0, searched);
    lab.figure("time while the locks are held: without an index ÷ with one", slow / quick, "");
    Ok(())
}

/// Deletes the users behind `after` up to `last`; how many rows were read one after another, and how long the foreign key
/// took. The users themselves are found by the primary key, so whatever is scanned is scanned for the foreign key.
async fn delete(fixture: &Fixture, after: i64, last: i64) -> anyhow::Result<(i64, f64)> {
    let mut tx = fixture.pool.begin().await?;
    let before = counted(&mut tx, "seq_tup_read").await?;
    let sql = format!(
        "explain (analyze, format json) delete from users where id > {after} and id <= {last}"
    );
    let Json(plan): Json<Value> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *tx).await?;
    let read = counted(&mut tx, "seq_tup_read").await? - before;
    tx.commit().await?;
    let triggers = plan[0]["Triggers"].as_array().into_iter().flatten();
    let time = triggers.filter_map(|it| it["Time"].as_f64()).sum();
    Ok((read, time))
}
