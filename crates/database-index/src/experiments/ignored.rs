//! When does the planner not use an index that is there: rightly, wrongly, and because it cannot?

use conform::target::eventually;
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};

use super::fixture::{Fixture, Reading};
use crate::{
    cases::client::Client,
    index::{Column, Index},
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "ignored",
        "idx_email does not serve five queries that look like the one it is for. An index of their own serves four of \
         them; the fifth returns more than half of the table, and there the planner is right to read all of it. With old statistics \
         it is wrong",
        &["--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/index.rs",
        replace: r#"#[serde(rename = "lower(email)")]"#,
        with: r#"#[serde(rename(serialize = "email", deserialize = "lower(email)"))]"#,
        check: "by_email_in_any_case reads less than half of the table with an index of its own",
    })
}

struct LookAlike {
    query: &'static str,
    because: &'static str,
    params: fn() -> Value,
    index: fn() -> Option<Value>,
}

const LOOK_ALIKES: [LookAlike; 5] = [
    LookAlike {
        query: "by_email_in_any_case",
        because: "a function wraps the column",
        params: || json!({ "email": "User777@example.org" }),
        index: || Some(json!({ "expression": "lower(email)" })),
    },
    LookAlike {
        query: "by_end_of_email",
        because: "the pattern begins with a wildcard",
        params: || json!({ "end": "r777@example.org" }),
        index: || Some(json!({ "kind": "trigram", "columns": ["email"] })),
    },
    LookAlike {
        query: "by_email_or_name",
        because: "the other column of the `or` has no index",
        params: || json!({ "email": "user777@example.org", "name": "User 777" }),
        index: || Some(json!({ "columns": ["name"] })),
    },
    LookAlike {
        query: "by_id_as_number",
        because: "the parameter's type casts the column",
        params: || json!({ "id": 777 }),
        index: || Some(json!({ "expression": "id::numeric" })),
    },
    LookAlike {
        query: "from_email_on",
        because: "more than half of the table is wanted",
        params: || json!({ "email": "user15" }),
        index: || None,
    },
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    look_alikes(&lab, &fixture, &client).await?;
    lab.progress(1, 3, "the share of the table that is wanted");
    crossover(&lab, &fixture, params.rows).await?;
    lab.progress(2, 3, "old statistics");
    old_statistics(&lab, params.rows).await
}

/// Asks for an index, and waits until its build has ended; whether it can be used. A program without such a call cannot.
async fn mend(client: &Client, name: &str, index: &Value) -> anyhow::Result<bool> {
    if !client.put(name, index).await?.status().is_success() {
        return Ok(false);
    }
    eventually("the build ends", async || {
        let seen = client.target.get(&format!("indexes/{name}")).await?.text().await?;
        Ok((!seen.contains(r#""state":"building""#)).then(|| seen.contains(r#""state":"ready""#)))
    })
    .await
}

async fn look_alikes(lab: &Lab, fixture: &Fixture, client: &Client) -> anyhow::Result<()> {
    let table = fixture.pages("users").await? as f64;
    mend(client, "idx_email", &json!({ "columns": ["email"] })).await?;
    let usual = client.run("by_email", json!({ "email": "user777@example.org" })).await?;
    lab.check("by_email reads a few pages", "at most 6", usual.pages, usual.pages <= 6.0);
    let (mut rows, mut scans) = (Vec::new(), 0);
    for (n, it) in LOOK_ALIKES.iter().enumerate() {
        let before = client.run(it.query, (it.params)()).await?;
        scans += u32::from(before.pages >= table);
        let mut after = "none helps".to_owned();
        if let Some(index) = (it.index)() {
            let ready = mend(client, &format!("idx_like_{n}"), &index).await?;
            if !ready && index["kind"] == "trigram" && lacks_trigrams(fixture).await? {
                lab.text("This server has no pg_trgm, so no index serves a leading wildcard.");
                continue;
            }
            let run = client.run(it.query, (it.params)()).await?;
            let check =
                format!("{} reads less than half of the table with an index of its own", it.query);
            lab.check(check, "yes", run.pages, run.pages * 2.0 < table);
            after = run.pages.to_string();
        }
        let [query, because] = [it.query, it.because].map(str::to_owned);
        rows.push(vec![query, because, before.rows.to_string(), before.pages.to_string(), after]);
    }
    lab.check_eq("look-alikes that read the whole table in spite of idx_email", 5, scans);
    let columns =
        ["query", "why not", "rows", "pages with idx_email", "pages with an index of its own"];
    lab.table(format!("Five look-alikes, in a table of {table} pages"), &columns, rows);
    Ok(())
}

async fn lacks_trigrams(fixture: &Fixture) -> anyhow::Result<bool> {
    let there = "select count(*) from pg_extension where extname = 'pg_trgm'";
    Ok(fixture.number(there).await? == 0)
}

const TITLE: &str = "The same rows by index and by scan";
const AXES: (&str, &str) = ("share of the table, %", "ms");
const BY_INDEX: &str = "set local enable_seqscan = off; set local enable_bitmapscan = off";
const BY_SCAN: &str = "set local enable_indexscan = off; set local enable_bitmapscan = off";

/// Rows in no order of the table: each is on another page.
async fn crossover(lab: &Lab, fixture: &Fixture, rows: i64) -> anyhow::Result<()> {
    fixture.build("idx_born", &Index::on(&[Column::Born])).await?;
    let mut seen = Vec::new();
    for share in [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0_f64] {
        let days = share * 200.0;
        let sql = format!("select id, name from users where born < date '1950-01-01' + {days:.0}");
        let mut plans = Vec::new();
        for settings in [BY_INDEX, BY_SCAN, ""] {
            fixture.explain(settings, "buffers, timing off", &sql).await?;
            plans.push(fixture.explain(settings, "buffers, timing off", &sql).await?);
        }
        lab.point(TITLE, AXES, "by index", (share, plans[0].milliseconds()));
        lab.point(TITLE, AXES, "by scan", (share, plans[1].milliseconds()));
        lab.point(TITLE, AXES, "as the planner does it", (share, plans[2].milliseconds()));
        seen.push((share, plans));
    }
    let (least, most) = (&seen[0].1, &seen[seen.len() - 1].1);
    lab.check_eq(
        "for 0.1 % of the table the planner reads all of it",
        false,
        least[2].has("Seq Scan"),
    );
    lab.check_eq(
        "for 80 % of the table the planner reads all of it",
        true,
        most[2].has("Seq Scan"),
    );
    let (by_index, by_scan) = (most[0].pages(), most[1].pages());
    let check = "for 80 % of the table: pages by index, against those by scan";
    lab.check(check, format!("more than {by_scan}"), by_index, by_index > by_scan);
    let first = |found: &dyn Fn(&[Reading]) -> bool| {
        seen.iter().find(|(_, plans)| found(plans)).map_or(100.0, |(share, _)| *share)
    };
    let planner = first(&|plans| plans[2].has("Seq Scan"));
    let faster = first(&|plans| plans[1].milliseconds() < plans[0].milliseconds());
    lab.figure("share from which on the planner scans, of those tried", planner, "%");
    lab.figure("share from which on the scan is faster, of those tried", faster, "%");
    lab.text(format!(
        "{rows} rows. Between the two the planner may take a bitmap scan: it sorts the pages first."
    ));
    Ok(())
}

/// The statistics are from a time when every row had the value that is rare now.
async fn old_statistics(lab: &Lab, rows: i64) -> anyhow::Result<()> {
    let fixture = Fixture::of(lab, 0).await?;
    let rare = rows / 200;
    fixture.add(1, rare).await?;
    fixture.sql("update users set status = 'blocked'").await?;
    fixture.sql("vacuum analyze users").await?;
    fixture.add(rare + 1, rows).await?;
    fixture
        .sql(&format!(
            "update users set status = 'active' where id > {rare} and status = 'blocked'"
        ))
        .await?;
    fixture.build("idx_status", &Index::on(&[Column::Status])).await?;
    let sql = "select id, name from users where status = 'blocked'";
    let old = fixture.explain("", "buffers", sql).await?;
    fixture.sql("analyze users").await?;
    let new = fixture.explain("", "buffers", sql).await?;
    lab.check_eq(
        "with old statistics the planner reads the whole table",
        true,
        old.has("Seq Scan"),
    );
    lab.check_eq("after `analyze` it reads the whole table", false, new.has("Seq Scan"));
    lab.figure("pages with old statistics ÷ pages after `analyze`", old.pages() / new.pages(), "");
    Ok(())
}
