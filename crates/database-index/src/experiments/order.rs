//! What does the order of an index's columns decide?

use super::fixture::{Fixture, text};
use crate::{
    index::{Column, Index},
    query::Query,
};
use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "order",
        "(city, born) serves city, city with born, and the order by born within a city. For born alone the whole index or the \
         whole table is read, except by the skip scan of PostgreSQL 18. The column that is compared with `=` comes first",
        &["--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/query.rs",
        replace: "path.equal.iter().copied().chain(path.then).collect()",
        with: "path.then.into_iter().chain(path.equal.iter().copied()).collect()",
        check: "the city: the whole table is read",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (city, day) = (text("City 7"), text("2000-01-01"));
    let queries = [
        ("by_city", vec![city.clone()]),
        ("by_city_and_born", vec![city.clone(), day.clone()]),
        ("by_city_born_since", vec![city.clone(), day.clone()]),
        ("youngest_of_city", vec![city]),
        ("by_born", vec![day]),
    ];
    let table = fixture.pages("users").await? as f64;
    let mut index = Query::find("by_city_born_since")?.candidates();
    let index = index.pop().context("the query has a candidate")?;
    let mut rows: Vec<_> = queries.iter().map(|(name, _)| vec![(*name).to_owned()]).collect();
    let mut of_index = Vec::new();
    for (n, indexed) in [false, true].into_iter().enumerate() {
        lab.progress(n as u64, 4, "five queries");
        if indexed {
            fixture.build("idx_city_born", &index).await?;
        }
        for ((name, values), row) in queries.iter().zip(&mut rows) {
            let plan = fixture.run(name, values).await?;
            let kinds: Vec<_> = plan.nodes().into_iter().map(|node| node.kind).collect();
            row.push(format!("{} pages: {}", plan.pages(), kinds.join(", ")));
            if indexed {
                of_index.push(plan);
            }
        }
    }
    lab.table("Without an index, and with (city, born)", &["query", "without", "with"], rows);
    let [city, both, since, youngest, born] = &of_index[..] else { return Ok(()) };
    for (what, plan) in [("the city", city), ("city and day", both), ("city and range", since)] {
        let check = format!("{what}: the whole table is read");
        lab.check_eq(check, false, plan.has("Seq Scan"));
    }
    lab.check("city and day: pages", "at most 20", both.pages(), both.pages() <= 20.0);
    let sorted = youngest.has("Sort") || youngest.has("Incremental Sort");
    lab.check_eq("the youngest of a city are sorted", false, sorted);
    lab.check(
        "the youngest of a city: pages",
        "at most 40",
        youngest.pages(),
        youngest.pages() <= 40.0,
    );
    let size = fixture.pages("idx_city_born").await? as f64;
    lab.figure("the day alone: pages ÷ those of the index", born.pages() / size, "");
    let version = "select current_setting('server_version_num')::bigint";
    if fixture.number(version).await? < 180_000 {
        let all = size.min(table);
        let check = "the day alone: pages";
        // Pages that are only the tree's upper levels are not read in turn.
        lab.check(
            check,
            format!("at least 90 % of {all}"),
            born.pages(),
            born.pages() >= 0.9 * all,
        );
    }
    lab.progress(2, 4, "the other order");
    // Nothing but the index is read: the table's pages would be the same.
    let sql = "select count(*) from users where city = 'City 7' and born >= date '1960-01-01'";
    let force = "set local enable_seqscan = off; set local enable_bitmapscan = off";
    let right = fixture.explain(force, "buffers", sql).await?;
    fixture.drop("idx_city_born").await?;
    fixture.build("idx_born_city", &Index::on(&[Column::Born, Column::City])).await?;
    let wrong = fixture.explain(force, "buffers", sql).await?;
    let ratio = wrong.pages() / right.pages();
    lab.figure("a city and a range: pages with (born, city) ÷ with (city, born)", ratio, "");
    lab.check("the range first reads more pages", "5 times as many at least", ratio, ratio >= 5.0);
    let (name, values) = &queries[1];
    let either = fixture.run(name, values).await?.pages();
    lab.check("city and day: pages with (born, city)", "at most 20", either, either <= 20.0);
    lab.progress(3, 4, "two indexes");
    fixture.drop("idx_born_city").await?;
    fixture.build("idx_city", &Index::on(&[Column::City])).await?;
    fixture.build("idx_born", &Index::on(&[Column::Born])).await?;
    let two = fixture.run("youngest_of_city", &queries[3].1).await?;
    let ratio = two.pages() / youngest.pages();
    lab.figure("the youngest of a city: pages with two indexes ÷ with (city, born)", ratio, "");
    let check = "two indexes read more pages than one on both";
    lab.check(check, "3 times as many at least", format!("{ratio:.1}"), ratio >= 3.0);
    Ok(())
}
