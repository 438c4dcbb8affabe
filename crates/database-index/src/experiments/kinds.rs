//! Which kind of index is for what, and what comes of it elsewhere?

use std::{collections::BTreeMap, fmt, time::Instant};

use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Fixture, Reading};
use crate::index::{Column, Index, Kind, Name};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(i64).range(20_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "kinds",
        "A hash index serves equality and no range; GIN finds a word in a list; trigrams serve a leading wildcard if three letters \
         follow; GiST finds the most similar text; BRIN is tiny, serves a column in the order of the table, and is of no use for \
         another one",
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

/// What comes of an index for a query.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    /// It is read, and then only a part of the table.
    Serves,
    /// It is read, and then the whole table all the same.
    Whole,
    /// It cannot be used.
    Nothing,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serves => "serves it",
            Self::Whole => "is used, and the whole table is read",
            Self::Nothing => "cannot be used",
        })
    }
}

struct Trial {
    kind: Kind,
    column: Column,
    queries: &'static [(&'static str, Use)],
}

const ADDRESS: &str = "where email = 'user777@example.org'";
const RANGE: &str = "where email >= 'user777' and email < 'user778'";
const END: &str = "where email like '%r777@example.org'";
const SIMILAR: &str = "order by name <-> 'User 777' limit 5";
const HALF_AN_HOUR: &str =
    "where created_at >= '2026-01-01 01:00Z' and created_at < '2026-01-01 01:30Z'";

const TRIALS: [Trial; 9] = [
    Trial {
        kind: Kind::Btree,
        column: Column::Email,
        queries: &[
            (ADDRESS, Use::Serves),
            (RANGE, Use::Serves),
            ("where email like 'user777%'", Use::Serves),
            (END, Use::Nothing),
        ],
    },
    Trial {
        kind: Kind::Hash,
        column: Column::Email,
        queries: &[(ADDRESS, Use::Serves), (RANGE, Use::Nothing)],
    },
    Trial {
        kind: Kind::Gin,
        column: Column::Tags,
        queries: &[
            ("where tags @> '{tag 7}'", Use::Serves),
            // The same rows, asked for by a place in the list.
            ("where tags[1] = 'tag 7'", Use::Nothing),
        ],
    },
    Trial {
        kind: Kind::Trigram,
        column: Column::Email,
        // Of two letters there is no trigram, so every row may have them.
        queries: &[(END, Use::Serves), ("where email like '%r7%'", Use::Whole)],
    },
    Trial { kind: Kind::Trigram, column: Column::Name, queries: &[(SIMILAR, Use::Nothing)] },
    Trial {
        kind: Kind::Gist,
        column: Column::Name,
        queries: &[(SIMILAR, Use::Serves), ("where name >= 'User 777'", Use::Nothing)],
    },
    Trial { kind: Kind::Btree, column: Column::CreatedAt, queries: &[(HALF_AN_HOUR, Use::Serves)] },
    Trial { kind: Kind::Brin, column: Column::CreatedAt, queries: &[(HALF_AN_HOUR, Use::Serves)] },
    // Days of birth are in no order.
    Trial {
        kind: Kind::Brin,
        column: Column::Born,
        queries: &[("where born = '2000-01-01'", Use::Whole)],
    },
];

/// Whether an index *can* be used is what this is about; in a small table the planner would not.
const FORCE: &str = "set local enable_seqscan = off";

/// What making an index cost.
#[derive(Clone, Copy)]
struct Cost {
    pages: f64,
    milliseconds: f64,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let table = fixture.pages("users").await? as f64;
    let trigrams = fixture.sql("create extension if not exists pg_trgm").await.is_ok();
    if !trigrams {
        lab.text("This server has no pg_trgm, so there are no trigrams.");
    }
    let (mut rows, mut costs) = (Vec::new(), BTreeMap::new());
    for (n, it) in (0..).zip(&TRIALS) {
        if !trigrams && [Kind::Trigram, Kind::Gist].contains(&it.kind) {
            continue;
        }
        let index = Index { kind: it.kind, ..Index::on(&[it.column]) };
        let name = index.name();
        lab.progress(n, TRIALS.len() as u64, &name);
        let cost = build(&fixture, &name, &index).await?;
        for (wanted, expected) in it.queries {
            let sql = format!("select id, name from users {wanted}");
            fixture.explain(FORCE, "buffers", &sql).await?;
            let plan = fixture.explain(FORCE, "buffers", &sql).await?;
            let seen = came_of(&plan, &name, table);
            lab.check_eq(format!("{name}, {wanted}"), *expected, seen);
            let cells = [cost.pages, cost.milliseconds.round(), plan.pages()];
            let cells = cells.map(|it| it.to_string()).to_vec();
            let words = vec![name.clone(), (*wanted).to_owned(), seen.to_string()];
            rows.push([words, cells].concat());
        }
        fixture.sql(&format!("drop index {name}")).await?;
        costs.insert(name, cost);
    }
    let columns = ["index", "query", "it", "its pages", "ms to build it", "pages read"];
    lab.table(format!("Kinds of index, in a table of {table} pages"), &columns, rows);
    compare(&lab, &costs);
    Ok(())
}

/// Builds the index by the answer's statement. `concurrently` it would also wait for others, and that is not its cost.
async fn build(fixture: &Fixture, name: &str, index: &Index) -> anyhow::Result<Cost> {
    let statement = index.statement("", &Name::parse(name)?);
    let begun = Instant::now();
    fixture.sql(&statement).await?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1_000.0;
    Ok(Cost { pages: fixture.pages(name).await? as f64, milliseconds })
}

fn came_of(plan: &Reading, name: &str, table: f64) -> Use {
    if !plan.reads(name) {
        Use::Nothing
    } else if plan.pages() >= table {
        Use::Whole
    } else {
        Use::Serves
    }
}

fn compare(lab: &Lab, costs: &BTreeMap<String, Cost>) {
    let of = |name: &str, what: fn(&Cost) -> f64| costs.get(name).map_or(f64::NAN, what);
    let pages = |name| of(name, |it| it.pages);
    let times = |name| of(name, |it| it.milliseconds);
    let brin = pages("idx_created_at_brin") / pages("idx_created_at");
    let check = "BRIN on the time: its pages, against those of a B-tree";
    lab.check(check, "a tenth at most", format!("{brin:.4}"), brin <= 0.1);
    lab.figure("pages: B-tree ÷ BRIN, on the time", 1.0 / brin, "");
    let hash = pages("idx_email_hash") / pages("idx_email");
    lab.figure("pages: hash ÷ B-tree, on the address", hash, "");
    if costs.contains_key("idx_email_trigram") {
        let trigrams = pages("idx_email_trigram") / pages("idx_email");
        lab.figure("pages: trigrams ÷ B-tree, on the address", trigrams, "");
        let slower = times("idx_email_trigram") / times("idx_email");
        lab.figure("time of the build: trigrams ÷ B-tree, on the address", slower, "");
    }
}
