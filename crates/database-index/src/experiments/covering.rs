//! When does an index answer a query alone, without a look into the table?

use lab::{Experiment, Lab, Sabotage};

use super::fixture::Fixture;
use crate::index::{Column, Index};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "covering",
        "An index-only scan needs every column in the index, and a visibility map that is up to date: before VACUUM each row is \
         looked up in the table, after it none is, and after writes some are again",
        &["--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/index.rs",
        replace: r#"sql += &format!(" include ({})", include.join(", "));"#,
        with: "drop(include);",
        check: "with the name in the index it is read alone",
    })
}

const QUERY: &str = "select name from users where city = 'City 7'";
/// The planner knows how little of the table is marked as visible, and may choose another plan. This is about that one.
const FORCE: &str = "set local enable_seqscan = off; set local enable_bitmapscan = off";
const ONLY: &str = "Index Only Scan";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 0).await?;
    fixture.add(1, params.rows).await?;
    fixture.sql("analyze users").await?;
    let city = Index::on(&[Column::City]);
    fixture.build("idx_city", &city).await?;
    let plain = fixture.explain(FORCE, "buffers", QUERY).await?;
    lab.check_eq("with the city alone in the index it is read alone", false, plain.has(ONLY));
    fixture.drop("idx_city").await?;
    fixture.build("idx_city_name", &Index { include: vec![Column::Name], ..city }).await?;
    let mut rows = Vec::new();
    let steps = [
        ("before VACUUM", ""),
        ("after VACUUM", "vacuum users"),
        (
            "after a tenth of these rows was written",
            "update users set notes = 'x' where city = 'City 7' and id % 10 = 0",
        ),
        ("after another VACUUM", "vacuum users"),
    ];
    let mut plans = Vec::new();
    for (what, sql) in steps {
        fixture.sql(sql).await?;
        let plan = fixture.explain(FORCE, "buffers", QUERY).await?;
        let cells = [plan.number("Actual Rows"), plan.number("Heap Fetches"), plan.pages()]
            .map(|it| it.to_string());
        rows.push([vec![what.to_owned()], cells.to_vec()].concat());
        plans.push(plan);
    }
    let columns = ["when", "rows", "looked up in the table", "pages"];
    lab.table("The names of a city, by an index on (city) that includes the name", &columns, rows);
    let [before, after, written, again] = &plans[..] else { return Ok(()) };
    lab.check_eq("with the name in the index it is read alone", true, after.has(ONLY));
    lab.check_eq(
        "rows looked up before VACUUM",
        before.number("Actual Rows"),
        before.number("Heap Fetches"),
    );
    lab.check_eq("rows looked up after VACUUM", 0.0, after.number("Heap Fetches"));
    let fetches = written.number("Heap Fetches");
    // Each row that was written is looked up twice, for its old and its new version; the others only stand on the same pages.
    let updated = "select count(*) from users where city = 'City 7' and notes = 'x'";
    let twice = fixture.number(updated).await? * 2;
    let check = "rows looked up after writes";
    lab.check(check, format!("more than {twice}"), fetches, fetches > twice as f64);
    lab.check_eq("rows looked up after another VACUUM", 0.0, again.number("Heap Fetches"));
    lab.figure(
        "pages: (city) ÷ (city) with the name, after VACUUM",
        plain.pages() / after.pages(),
        "",
    );
    lab.figure("pages: before VACUUM ÷ after", before.pages() / after.pages(), "");
    Ok(())
}
