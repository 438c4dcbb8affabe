//! How large is an index, and why is it larger than it has to be?

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, types::Json};

use super::fixture::{Fixture, Reading};
use crate::{
    index::{Column, Index},
    plan::Plan,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(i64).range(40_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "space",
        "Keys that come in random order split pages in the middle: the index is larger, and all of it has to be in memory. Equal \
         keys are kept once for many rows. An index does not shrink when half of the rows are deleted",
        &["--rows", "40000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store/indexes.sql",
        replace: "(12 + 8 * ceil(sum(avg_width) / 8.0)) / 0.9",
        with: "(12 + 8 * ceil(sum(avg_width) / 8.0)) / 0.3",
        check: "the part of the index that is found to be empty",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    lab.progress(0, 4, "random and ordered keys");
    orders(&lab, &fixture, params.rows).await?;
    lab.progress(2, 4, "equal keys");
    equal(&lab, &fixture).await?;
    lab.progress(3, 4, "half of the rows are deleted");
    deleted(&lab, &fixture).await
}

/// Version 7 of UUIDs begins with the time, so its keys come in order.
const ORDERED: &str = "(lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid";
const RANDOM: &str = "gen_random_uuid()";

/// What came of one order of the keys.
struct Keys {
    pages: i64,
    splits: f64,
    bytes: f64,
    milliseconds: f64,
    read_again: f64,
}

async fn orders(lab: &Lab, fixture: &Fixture, rows: i64) -> anyhow::Result<()> {
    let random = keys(fixture, "random_keys", RANDOM, rows).await?;
    lab.progress(1, 4, "keys in order");
    let ordered = keys(fixture, "ordered_keys", ORDERED, rows).await?;
    let row = |name: &str, it: &Keys| {
        let cells = [it.pages as f64, it.splits, it.bytes, it.milliseconds.round(), it.read_again];
        [vec![name.to_owned()], cells.map(|it| it.to_string()).to_vec()].concat()
    };
    let columns = [
        "UUIDs",
        "pages of the index",
        "page splits",
        "bytes in the log",
        "ms",
        "pages read again, in a memory of 100 pages",
    ];
    let table = vec![row("random", &random), row("in order", &ordered)];
    lab.table(format!("{rows} rows are inserted, with an index on their key"), &columns, table);
    let ratio = random.pages as f64 / ordered.pages as f64;
    lab.figure("random UUIDs ÷ ordered ones: pages of the index", ratio, "");
    lab.figure("random UUIDs ÷ ordered ones: page splits", random.splits / ordered.splits, "");
    lab.figure("random UUIDs ÷ ordered ones: bytes in the log", random.bytes / ordered.bytes, "");
    let slower = random.milliseconds / ordered.milliseconds;
    lab.figure("random UUIDs ÷ ordered ones: time", slower, "");
    // All pages of a random index fill and split at about the same time, so they are now half full, now almost full. On average
    // they are 69 % full, against 90 % for keys in order.
    lab.check(
        "random keys make a larger index",
        "1.1 times as large at least",
        format!("{ratio:.2}"),
        ratio >= 1.1,
    );
    let misses = random.read_again / rows as f64 * 1_000.0;
    lab.figure("random UUIDs: pages read again for 1,000 rows", misses, "");
    let check = "pages that ordered keys read again for 1,000 rows";
    let misses = ordered.read_again / rows as f64 * 1_000.0;
    lab.check(check, "less than 10", format!("{misses:.1}"), misses < 10.0);
    let check = "pages that random keys read again, more than ordered ones";
    let more = random.read_again - ordered.read_again;
    lab.check(check, "a hundredth of the rows at least", more, more * 100.0 >= rows as f64);
    Ok(())
}

async fn keys(fixture: &Fixture, table: &str, key: &str, rows: i64) -> anyhow::Result<Keys> {
    fixture
        .sql(&format!("create table {table} (id uuid primary key) with (autovacuum_enabled = off)"))
        .await?;
    let rows_of = format!("select {key} from generate_series(1, {rows}) as n");
    let plan = fixture.explain("", "wal", &format!("insert into {table} {rows_of}")).await?;
    // The log has a record for each row, and one for its key, perhaps as a part of a page split. A split brings another
    // record, for the new page's key in the page above.
    let splits = plan.number("WAL Records") - 2.0 * rows as f64;
    let pages = fixture.pages(&format!("{table}_pkey")).await?;
    let small = in_little_memory(fixture, &format!("insert into few {rows_of}")).await?;
    Ok(Keys {
        pages,
        splits,
        bytes: plan.number("WAL Bytes"),
        milliseconds: plan.milliseconds(),
        read_again: small.number("Local Read Blocks"),
    })
}

/// The same into a temporary table. A session has memory of its own for those, and this one has as little as there can be: a
/// hundred pages.
async fn in_little_memory(fixture: &Fixture, insert: &str) -> anyhow::Result<Reading> {
    let mut session = PgConnection::connect(fixture.database.url()).await?;
    let setup = "set temp_buffers = 100; create temp table few (id uuid primary key)";
    sqlx::raw_sql(setup).execute(&mut session).await?;
    let explain = AssertSqlSafe(format!("explain (analyze, buffers, format json) {insert}"));
    let Json(plan): Json<Value> = sqlx::query_scalar(explain).fetch_one(&mut session).await?;
    session.close().await?;
    Ok(Reading(Plan(plan)))
}

async fn equal(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    fixture.build("idx_city", &Index::on(&[Column::City])).await?;
    fixture.sql("create index every_key on users (city) with (deduplicate_items = off)").await?;
    let (once, each) = (fixture.pages("idx_city").await?, fixture.pages("every_key").await?);
    let ratio = each as f64 / once as f64;
    lab.figure("equal keys: every one ÷ kept once, pages", ratio, "");
    lab.check(
        "equal keys that are kept once make a smaller index",
        "2 times as small at least",
        format!("{ratio:.2}"),
        ratio >= 2.0,
    );
    fixture.sql("drop index every_key").await
}

async fn deleted(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    fixture.build("idx_email", &Index::on(&[Column::Email])).await?;
    let table = fixture.pages("users").await?;
    let before = fixture.pages("idx_email").await?;
    lab.figure("an index on the address ÷ the table, pages", before as f64 / table as f64, "");
    let full = bloat(fixture).await?;
    lab.check(
        "the part of a new index that is found to be empty",
        "less than 0.15",
        format!("{full:.2}"),
        full < 0.15,
    );
    // It has no index, so each deletion would scan the table: that is another experiment.
    fixture.sql("alter table users drop constraint users_referred_by").await?;
    fixture.sql("delete from users where id % 2 = 0").await?;
    fixture.sql("vacuum analyze users").await?;
    let after = fixture.pages("idx_email").await?;
    lab.check_eq("pages of the index when half of the rows are deleted", before, after);
    let empty = bloat(fixture).await?;
    let check = "the part of the index that is found to be empty";
    lab.check(check, "0.4 to 0.6", format!("{empty:.2}"), (0.4..=0.6).contains(&empty));
    fixture.sql("reindex index concurrently idx_email").await?;
    let anew = fixture.pages("idx_email").await?;
    let most = before as f64 * 0.6;
    let check = "pages of the index when it is made anew";
    lab.check(check, format!("at most {most:.0}"), anew, anew as f64 <= most);
    Ok(())
}

/// Which part of the index is empty, as `GET /indexes` says.
async fn bloat(fixture: &Fixture) -> anyhow::Result<f64> {
    let indexes = fixture.store.indexes().await?;
    let index = indexes.iter().find(|index| index.name == "idx_email").context("idx_email")?;
    index.bloat.context("an estimate")
}
