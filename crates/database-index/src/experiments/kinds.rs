//! Which kind of index is for what, and what comes of it elsewhere?

use std::time::Instant;

use lab::{Experiment, Lab, Sabotage};

use super::fixture::Fixture;
use crate::index::{Column, Index, Kind};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "kinds",
        "A hash index serves equality and no range; GIN finds a word in a list; trigrams serve a leading wildcard; BRIN is tiny \
         and serves a column in the order of the table, and no other",
        &["--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/index.rs",
        replace: r#"kind => (word(kind), ""),"#,
        with: r#"kind => (word(kind).replace("brin", "btree"), ""),"#,
        check: "BRIN on the time: its pages, against those of a B-tree",
    })
}

struct Trial {
    kind: Kind,
    column: Column,
    /// Which rows are looked for.
    wanted: &'static str,
    /// Whether this kind is made for it.
    good: bool,
}

const fn trial(kind: Kind, column: Column, wanted: &'static str, good: bool) -> Trial {
    Trial { kind, column, wanted, good }
}

const ADDRESS: &str = "email = 'user777@example.org'";
const RANGE: &str = "email >= 'user777' and email < 'user778'";
const HALF_AN_HOUR: &str = "created_at >= '2026-01-01 01:00Z' and created_at < '2026-01-01 01:30Z'";

const TRIALS: [Trial; 8] = [
    trial(Kind::Btree, Column::Email, ADDRESS, true),
    trial(Kind::Hash, Column::Email, ADDRESS, true),
    trial(Kind::Hash, Column::Email, RANGE, false),
    trial(Kind::Gin, Column::Tags, "tags @> '{tag 7}'", true),
    trial(Kind::Trigram, Column::Email, "email like '%r777@example.org'", true),
    trial(Kind::Btree, Column::CreatedAt, HALF_AN_HOUR, true),
    trial(Kind::Brin, Column::CreatedAt, HALF_AN_HOUR, true),
    trial(Kind::Brin, Column::Born, "born = '2000-01-01'", false),
];

/// Whether an index *can* be used is what this is about; in a small table the planner would not.
const FORCE: &str = "set local enable_seqscan = off";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let table = fixture.pages("users").await? as f64;
    let (mut rows, mut sizes) = (Vec::new(), Vec::new());
    for (n, it) in TRIALS.iter().enumerate() {
        let index = Index { kind: it.kind, ..Index::on(&[it.column]) };
        let name = index.name();
        lab.progress(n as u64, TRIALS.len() as u64, &name);
        let begun = Instant::now();
        if let Err(error) = fixture.build(&name, &index).await {
            // The extension of trigrams is not on every server.
            anyhow::ensure!(it.kind == Kind::Trigram, error);
            lab.text("This server has no pg_trgm.");
            continue;
        }
        let milliseconds = begun.elapsed().as_secs_f64() * 1_000.0;
        let size = fixture.pages(&name).await?;
        let sql = format!("select id, name from users where {}", it.wanted);
        fixture.explain(FORCE, "buffers", &sql).await?;
        let plan = fixture.explain(FORCE, "buffers", &sql).await?;
        let kind = format!("{:?} on {:?}", it.kind, it.column);
        let used = plan.reads(&name);
        let cells = [size.to_string(), format!("{milliseconds:.0}"), plan.pages().to_string()];
        let what = if it.good { "made for it" } else { "not made for it" };
        rows.push(
            [vec![kind.clone(), it.wanted.to_owned(), what.to_owned()], cells.to_vec()].concat(),
        );
        if it.kind == Kind::Brin && !it.good {
            let check = "BRIN on the day, which is in no order: pages that are read";
            lab.check(check, format!("all {table}"), plan.pages(), plan.pages() >= table);
        } else {
            lab.check_eq(format!("{kind} is used for {}", it.wanted), it.good, used);
        }
        sizes.push((kind, size as f64, plan.pages()));
        fixture.drop(&name).await?;
    }
    let columns =
        ["index", "rows that are wanted", "", "pages of it", "ms to build it", "pages read"];
    lab.table(format!("Kinds of index, in a table of {table} pages"), &columns, rows);
    let of = |name: &str| sizes.iter().find(|(kind, ..)| kind == name).map_or(f64::NAN, |it| it.1);
    let brin = of("Brin on CreatedAt") / of("Btree on CreatedAt");
    let check = "BRIN on the time: its pages, against those of a B-tree";
    lab.check(check, "a tenth at most", format!("{brin:.4}"), brin <= 0.1);
    lab.figure("pages: B-tree ÷ BRIN, on the time", 1.0 / brin, "");
    lab.figure(
        "pages: hash ÷ B-tree, on the address",
        of("Hash on Email") / of("Btree on Email"),
        "",
    );
    Ok(())
}
