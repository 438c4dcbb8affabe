//! How large is an index, and why is it larger than it has to be?

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};

use super::fixture::Fixture;
use crate::index::{Column, Index};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "space",
        "Keys that come in random order leave the pages of a B-tree a third empty, keys in order do not; equal keys are kept once \
         for many rows; and an index does not shrink when half of the rows are deleted",
        &["--rows", "20000"],
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
    let rows = params.rows;
    let fixture = Fixture::of(&lab, rows).await?;
    lab.progress(0, 3, "random and ordered keys");
    // Version 7 of UUIDs begins with the time, so its keys come in order.
    let ordered = "lpad(to_hex(n), 12, '0') || '70008000000000000000'";
    let mut pages = Vec::new();
    for (table, key) in
        [("random_keys", "gen_random_uuid()"), ("ordered_keys", &format!("({ordered})::uuid"))]
    {
        fixture.sql(&format!("create table {table} (id uuid primary key)")).await?;
        let insert =
            format!("insert into {table} select {key} from generate_series(1, {rows}) as n");
        let plan = fixture.explain("", "wal", &insert).await?;
        let size = fixture.pages(&format!("{table}_pkey")).await?;
        pages.push((size, plan.number("WAL Bytes"), plan.milliseconds()));
    }
    let [(random, random_log, slow), (ordered, ordered_log, quick)] = pages[..] else {
        return Ok(());
    };
    let ratio = random as f64 / ordered as f64;
    lab.figure("random UUIDs ÷ ordered ones: pages of the index", ratio, "");
    lab.figure("random UUIDs ÷ ordered ones: bytes in the log", random_log / ordered_log, "");
    lab.figure("random UUIDs ÷ ordered ones: time", slow / quick, "");
    lab.check(
        "random keys make a larger index",
        "1.15 times as large at least",
        format!("{ratio:.2}"),
        ratio >= 1.15,
    );

    lab.progress(1, 3, "equal keys");
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
    fixture.sql("drop index every_key").await?;

    lab.progress(2, 3, "half of the rows are deleted");
    fixture.build("idx_email", &Index::on(&[Column::Email])).await?;
    let table = fixture.pages("users").await?;
    let before = fixture.pages("idx_email").await?;
    lab.figure("an index on the address ÷ the table, pages", before as f64 / table as f64, "");
    let full = bloat(&fixture).await?;
    lab.check(
        "the part of a new index that is found to be empty",
        "less than 0.15",
        format!("{full:.2}"),
        full < 0.15,
    );
    fixture.sql("delete from users where id % 2 = 0").await?;
    fixture.sql("vacuum analyze users").await?;
    let after = fixture.pages("idx_email").await?;
    lab.check_eq("pages of the index when half of the rows are deleted", before, after);
    let empty = bloat(&fixture).await?;
    let check = "the part of the index that is found to be empty";
    lab.check(check, "0.4 to 0.6", format!("{empty:.2}"), (0.4..=0.6).contains(&empty));
    fixture.sql("reindex index concurrently idx_email").await?;
    let anew = fixture.pages("idx_email").await?;
    let least = before as f64 * 0.6;
    let check = "pages of the index when it is made anew";
    lab.check(check, format!("at most {least:.0}"), anew, anew as f64 <= least);
    Ok(())
}

/// Which part of the index is empty, as `GET /indexes` says.
async fn bloat(fixture: &Fixture) -> anyhow::Result<f64> {
    let indexes = fixture.store.indexes().await?;
    let index = indexes.iter().find(|index| index.name == "idx_email").context("idx_email")?;
    index.bloat.context("an estimate")
}
