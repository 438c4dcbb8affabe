//! Does the adviser find the indexes that a workload needs, and no others?

use std::time::Duration;

use conform::{
    expect::{json_of, list},
    target::within,
};
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};

use super::fixture::Fixture;
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "advice",
        "For a workload whose best set of indexes is known, the adviser proposes that set, names the indexes that no query misses, and \
         has nothing more to say when its advice is taken. From the first index that its trial takes away on, nobody reads",
        &["--rows", "20000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/advice.rs",
        replace: "const NEEDED: f64 = 1.2;",
        with: "const NEEDED: f64 = 0.9;",
        check: "indexes that no query misses",
    })
}

/// For a session to wait. The trial itself waits for two seconds at most.
const PATIENCE: Duration = Duration::from_millis(1_500);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    // One that is covered by what will be proposed, and one that nobody needs.
    client.build("idx_city", &json!({ "columns": ["city"] })).await?;
    client.build("idx_born", &json!({ "columns": ["born"] })).await?;
    let trigrams = fixture.has_trigrams().await?;
    let mut workload = vec![
        ("by_email", json!({ "email": "user777@example.org" })),
        ("by_email_in_any_case", json!({ "email": "User777@example.org" })),
        ("from_email_on", json!({ "email": "user15" })),
        ("by_city", json!({ "city": "City 7" })),
        ("by_city_born_since", json!({ "city": "City 7", "born": "2000-01-01" })),
        ("youngest_of_city", json!({ "city": "City 7" })),
        ("blocked_lately", json!({})),
    ];
    if trigrams {
        workload.push(("by_end_of_email", json!({ "end": "r777@example.org" })));
    } else {
        lab.text("This server has no pg_trgm, so no index serves a leading wildcard.");
    }
    for (query, params) in &workload {
        client.run(query, params.clone()).await?;
    }
    let written = fixture.number("select count(*) from pg_index").await?;
    lab.progress(1, 3, "the adviser tries");
    let advice = json_of(client.target.get("advice").await?, 200).await?;
    let seen = names(&advice, "missing")?;
    let by_trigrams = if trigrams { ", idx_email_trigram" } else { "" };
    let expected = format!(
        "idx_city_born, idx_created_at_status_blocked, idx_email{by_trigrams}, idx_lower_email"
    );
    lab.check_eq("indexes that are proposed", expected, seen);
    lab.check_eq(
        "indexes that no query misses",
        "idx_born, idx_city".to_owned(),
        names(&advice, "not_missed")?,
    );
    let left = fixture.number("select count(*) from pg_index").await? - written;
    lab.check_eq("indexes that the trial has left", 0, left);
    table(&lab, "The planner's costs, before and as if the advice was taken", &advice)?;
    lab.progress(2, 3, "the advice is taken");
    for index in ["idx_born", "idx_city"] {
        client.dropped(index).await?;
    }
    for (name, index) in [
        ("idx_city_born", json!({ "columns": ["city", "born"] })),
        (
            "idx_created_at_status_blocked",
            json!({ "columns": ["created_at"], "where": "status = 'blocked'" }),
        ),
        ("idx_email", json!({ "columns": ["email"] })),
        ("idx_lower_email", json!({ "expression": "lower(email)" })),
    ] {
        client.build(name, &index).await?;
    }
    if trigrams {
        let index = json!({ "kind": "trigram", "columns": ["email"] });
        client.build("idx_email_trigram", &index).await?;
    }
    fixture.sql("analyze users").await?;
    let waits = reader_waits(&fixture, &client).await?;
    lab.check_eq("requests for a user that wait while the trial takes an index away", 1, waits);
    let (mut before, mut after) = (0.0, 0.0);
    for statement in list(&advice, "statements")? {
        before += statement["cost_now"].as_f64().unwrap_or_default();
        after += statement["cost_then"].as_f64().unwrap_or_default();
    }
    lab.figure("cost of the workload: before ÷ as if the advice was taken", before / after, "");
    let again = json_of(client.target.get("advice").await?, 200).await?;
    let more = format!("{}{}", names(&again, "missing")?, names(&again, "not_missed")?);
    lab.check_eq("what is proposed when the advice is taken", String::new(), more);
    costs_less(&lab, &client, &workload[..2]).await
}

/// An older transaction keeps the trial waiting when it takes away the first index. How many requests for a user wait behind
/// it?
async fn reader_waits(fixture: &Fixture, client: &Client) -> anyhow::Result<i64> {
    let mut old = fixture.pool.begin().await?;
    sqlx::query("select id from users limit 1").execute(&mut *old).await?;
    // Which lock somebody waits for on the table.
    let waiting = async |mode: &str, patience: Duration| {
        let sql = format!(
            "select count(*) from pg_locks where relation = 'users'::regclass and mode = '{mode}' and not granted"
        );
        within(patience, "a session waits", async || {
            let count = fixture.number(&sql).await?;
            Ok((count > 0).then_some(count))
        })
        .await
    };
    let read = async {
        waiting("AccessExclusiveLock", Duration::from_secs(40)).await?;
        let behind = async {
            let count = waiting("AccessShareLock", PATIENCE).await.unwrap_or_default();
            old.rollback().await?;
            anyhow::Ok(count)
        };
        let (user, count) = tokio::try_join!(client.target.get("users/1"), behind)?;
        conform::expect::status(&user, 200)?;
        anyhow::Ok(count)
    };
    // The trial gives up if it waits for two seconds; then its answer is 503, and here that is as good.
    let (_, count) = tokio::try_join!(client.target.get("advice"), read)?;
    Ok(count)
}

/// The costs are the planner's; the pages are real.
async fn costs_less(lab: &Lab, client: &Client, searches: &[(&str, Value)]) -> anyhow::Result<()> {
    for (query, params) in searches {
        let run = client.run(query, params.clone()).await?;
        lab.check(format!("{query}: pages afterwards"), "at most 6", run.pages, run.pages <= 6.0);
    }
    Ok(())
}

/// The names of what is proposed, in order.
fn names(advice: &Value, what: &str) -> anyhow::Result<String> {
    let names = list(advice, what)?.iter();
    let names = names.map(|it| it["name"].as_str().or(it.as_str()).unwrap_or_default());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    Ok(names.join(", "))
}

fn table(lab: &Lab, title: &str, advice: &Value) -> anyhow::Result<()> {
    let cost = |it: &Value, name: &str| format!("{:.0}", it[name].as_f64().unwrap_or_default());
    let row = |it: &Value| {
        let query = it["query"].as_str().unwrap_or_default().to_owned();
        vec![query, cost(it, "cost_now"), cost(it, "cost_then")]
    };
    let rows = list(advice, "statements")?.iter().map(row).collect();
    lab.table(title, &["query", "cost now", "cost then"], rows);
    Ok(())
}
