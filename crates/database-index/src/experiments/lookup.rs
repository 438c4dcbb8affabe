//! How many pages does a search read, with an index and without, as the table grows?

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, load::median};

use super::fixture::{Fixture, text};
use crate::index::{Column, Index};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the largest table
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(10_000..=10_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "lookup",
        "A search by idx_email reads a handful of pages in a table of any size: one for each level of the tree, and the row's. \
         Without the index it reads all pages",
        &["--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/queries.json",
        replace: "users where email = $1\"",
        with: "users where email || '' = $1\"",
        check: "pages that a search by index reads in the largest table",
    })
}

const TITLE: &str = "Pages that a search reads, by the rows of the table";
const AXES: (&str, &str) = ("rows", "pages");

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 0).await?;
    let sizes: Vec<_> =
        (3..7).map(|power| 10_i64.pow(power)).filter(|n| *n < params.rows).collect();
    let sizes = [sizes, vec![params.rows]].concat();
    let (mut had, mut rows, mut all) = (0, Vec::new(), Vec::new());
    for (n, size) in (0..).zip(&sizes) {
        lab.progress(n, sizes.len() as u64, format!("a table of {size} rows"));
        fixture.add(had + 1, *size).await?;
        had = *size;
        fixture.sql("vacuum analyze users").await?;
        let table = fixture.pages("users").await?;
        let wanted = [text(&format!("user{}@example.org", size / 2))];
        let scan = fixture.run("by_email", &wanted).await?;
        fixture.build("idx_email", &Index::on(&[Column::Email])).await?;
        let (mut times, mut lookup) = (Vec::new(), None);
        for _ in 0..10 {
            let plan = fixture.run("by_email", &wanted).await?;
            times.push(plan.milliseconds());
            lookup = Some(plan);
        }
        let lookup = lookup.context("it ran")?;
        let index = fixture.pages("idx_email").await?;
        fixture.drop("idx_email").await?;
        lab.point(TITLE, AXES, "without an index", (*size as f64, scan.pages()));
        lab.point(TITLE, AXES, "with idx_email", (*size as f64, lookup.pages()));
        let cells = [*size, table, index].map(|it| it.to_string());
        let pages = [scan.pages(), lookup.pages(), lookup.pages() - 1.0].map(|it| it.to_string());
        rows.push([cells, pages].concat());
        all.push((table as f64, scan, lookup, median(times)));
    }
    let columns = [
        "rows",
        "pages of the table",
        "pages of the index",
        "read without the index",
        "read with it",
        "of them in the index: its levels",
    ];
    lab.table("A search for one address", &columns, rows);
    let ((_, _, first, _), (table, scan, lookup, time)) = (&all[0], &all[all.len() - 1]);
    lab.check(
        "pages that a scan of the largest table reads",
        format!("all {table}"),
        scan.pages(),
        scan.pages() >= *table,
    );
    let pages = lookup.pages();
    let check = "pages that a search by index reads in the largest table";
    lab.check(check, "at most 6", pages, pages <= 6.0);
    let more = pages - first.pages();
    let check = "pages that it reads more than in a table of 1,000 rows";
    lab.check(check, "at most 3", more, more <= 3.0);
    lab.figure("pages of the largest table", *table, "");
    lab.figure("pages: scan ÷ search by index, in the largest table", scan.pages() / pages, "");
    let ratio = scan.milliseconds() / time;
    lab.figure("time: scan ÷ search by index, in the largest table", ratio, "");
    Ok(())
}
