//! What does each write pay for each index?

use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Fixture, Reading, counted};
use crate::index::{Column, Index};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(5_000..=5_000_000))]
    rows: i64,
    /// Rows that are inserted for each number of indexes. A fifth as many are updated
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(100..=100_000))]
    writes: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "write-cost",
        "Each index adds a record to the log for each row that is inserted. An update of a column without an index touches no \
         index (HOT) if the page has room, until somebody indexes that column",
        &["--rows", "10000", "--writes", "500"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/index.rs",
        replace: "if !self.include.is_empty() {",
        with: "if self.columns == [Column::City] {\n            sql += r#\" include (\"name\")\"#;\n        }\n        if !self.include.is_empty() {",
        check: "an update of the name, on pages with room: updates that touch no index",
    })
}

const TITLE: &str = "Writes per second, by the number of indexes";
const AXES: (&str, &str) = ("indexes beside the primary key's", "rows per second");

fn indexes() -> [Index; 8] {
    use Column::{Born, City, CreatedAt, Email, Notes, ReferredBy, Status};
    [
        Index::on(&[Email]),
        Index::on(&[City]),
        Index::on(&[Born]),
        Index::on(&[CreatedAt]),
        Index::on(&[City, Born]),
        Index::on(&[Status, CreatedAt]),
        Index::on(&[Notes, ReferredBy]),
        Index::on(&[Born, City]),
    ]
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let Params { rows, writes } = params;
    let fixture = Fixture::of(&lab, rows).await?;
    let (mut table, mut inserts, mut built) = (Vec::new(), Vec::new(), 0);
    let updates = writes / 5;
    for (step, count) in (0..).zip([0, 1, 2, 4, 8]) {
        lab.progress(step, 6, format!("{count} indexes"));
        for index in &indexes()[built..count] {
            fixture.build(&index.name(), index).await?;
        }
        built = count;
        // The first of two turns warms up.
        let turn = i64::try_from(step)? * 2;
        insert(&fixture, turn, writes).await?;
        let insert = insert(&fixture, turn + 1, writes).await?;
        update(&fixture, turn, updates).await?;
        let update = update(&fixture, turn + 1, updates).await?;
        for (line, plan, rows) in [("inserts", &insert, writes), ("updates", &update, updates)] {
            let rate = rows as f64 / plan.milliseconds() * 1_000.0;
            lab.point(TITLE, AXES, line, (count as f64, rate));
        }
        let row = [
            log(&insert, "Records", writes),
            log(&insert, "Bytes", writes),
            log(&update, "Records", updates),
            log(&update, "Bytes", updates),
        ];
        let cells = row.map(|it| format!("{it:.1}"));
        let whole = insert.number("WAL FPI") + update.number("WAL FPI");
        table.push([vec![count.to_string()], cells.to_vec(), vec![whole.to_string()]].concat());
        inserts.push((row, insert.milliseconds()));
    }
    let columns = [
        "indexes",
        "records for an insert",
        "bytes for it",
        "records for an update of the address",
        "bytes for it",
        "whole pages in all, after a checkpoint",
    ];
    lab.table("What PostgreSQL writes into its log, for each row", &columns, table);
    let ((none, quick), (eight, slow)) = (&inserts[0], &inserts[4]);
    let more = eight[0] - none[0];
    let check = "records in the log for an insert with eight indexes, more than with none";
    lab.check(check, "8 at least", format!("{more:.2}"), more >= 8.0);
    lab.figure("bytes in the log for an insert: eight indexes ÷ none", eight[1] / none[1], "");
    lab.figure("time of an insert: eight indexes ÷ none", slow / quick, "");
    lab.progress(5, 6, "updates that touch no index");
    heap_only(&lab, rows).await
}

/// Inserts as many rows, which no other turn has inserted.
async fn insert(fixture: &Fixture, turn: i64, rows: i64) -> anyhow::Result<Reading> {
    let first = 1_000_000_000 + turn * rows;
    let fill = include_str!("../store/fill.sql").replace("$1", &first.to_string());
    let fill = fill.replace("$2", &(first + rows - 1).to_string());
    fixture.explain("", "wal", &fill).await
}

/// Updates the address of as many rows, which no other turn has updated.
async fn update(fixture: &Fixture, turn: i64, rows: i64) -> anyhow::Result<Reading> {
    let (after, last) = (turn * rows, (turn + 1) * rows);
    let update =
        format!("update users set email = email || 'x' where id > {after} and id <= {last}");
    fixture.explain("", "wal", &update).await
}

/// What one of these rows brings into the log.
fn log(plan: &Reading, what: &str, rows: i64) -> f64 {
    plan.number(&format!("WAL {what}")) / rows as f64
}

async fn heap_only(lab: &Lab, rows: i64) -> anyhow::Result<()> {
    let fixture = Fixture::of(lab, rows).await?;
    fixture.build("idx_city", &Index::on(&[Column::City])).await?;
    let (full, of) = hot(&fixture, 0).await?;
    lab.figure(
        "an update of the name, on full pages: updates that touch no index",
        full as f64 / of as f64 * 100.0,
        "%",
    );
    // A fifth of each page stays free for new versions of its rows.
    fixture.sql("alter table users set (fillfactor = 80)").await?;
    fixture.sql("vacuum full users").await?;
    let (room, of) = hot(&fixture, 1).await?;
    let check = "an update of the name, on pages with room: updates that touch no index";
    lab.check_eq(check, of, room);
    fixture.build("idx_name", &Index::on(&[Column::Name])).await?;
    let (indexed, _) = hot(&fixture, 2).await?;
    let check = "an update of the name, with an index on it: updates that touch no index";
    lab.check_eq(check, 0, indexed);
    Ok(())
}

/// Updates one row of fifty; how many of these updates were heap-only, and how many there were.
async fn hot(fixture: &Fixture, turn: i64) -> anyhow::Result<(i64, i64)> {
    let mut tx = fixture.pool.begin().await?;
    let before = [counted(&mut tx, "n_tup_hot_upd").await?, counted(&mut tx, "n_tup_upd").await?];
    let update = "update users set name = name || '.' where id % 50 = $1";
    sqlx::query(update).bind(turn).execute(&mut *tx).await?;
    let after = [counted(&mut tx, "n_tup_hot_upd").await?, counted(&mut tx, "n_tup_upd").await?];
    tx.commit().await?;
    Ok((after[0] - before[0], after[1] - before[1]))
}
