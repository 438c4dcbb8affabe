//! What does a remedy for one query do to all others, and to writes?

use std::collections::BTreeMap;

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;
use sqlx::{Row, types::Json};

use super::{Rows, fixture::Fixture};
use crate::cases::client::{Client, pages};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "regression",
        "An index for one query helps some others, harms none that reads, and makes each insert write more. Partitions for one query \
         make others read more. Taken back, each query reads as many pages as before",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: r#""undo": "drop index if exists by_user_index_user" "#,
        with: r#""undo": "select" "#,
        check: "queries that read other pages after both were taken back",
    })
}

/// The pages of every patient's query, without `one-device`: its wrong estimate takes seconds, four times, and the experiment
/// `statistics` has it.
async fn all(lab: &Lab, client: &Client, what: &str) -> anyhow::Result<BTreeMap<String, f64>> {
    let (patients, mut seen) = (client.patients().await?, BTreeMap::new());
    for (n, patient) in patients.iter().enumerate() {
        lab.progress(n as u64, patients.len() as u64, what);
        let name = patient["name"].as_str().unwrap_or_default();
        if name == "one-device" {
            continue;
        }
        seen.insert(name.to_owned(), pages(&client.diagnose(name).await?));
    }
    Ok(seen)
}

/// Records in the log of writes for a thousand new events, which are rolled back.
async fn insert(fixture: &Fixture) -> anyhow::Result<f64> {
    let insert = "begin; explain (analyze, wal, format json)
        insert into events (id, user_id, kind, url, created_at)
        select 1000000 + n, n % 100 + 1, 'view', '/page', timestamptz '2027-01-01' + n * interval '1 second'
        from generate_series(1, 1000) as n";
    let mut session = fixture.connect().await?;
    let row = sqlx::raw_sql(insert).fetch_one(&mut session).await?;
    let Json(plan): Json<Value> = row.try_get(0)?;
    sqlx::raw_sql("rollback").execute(&mut session).await?;
    // Rows that were rolled back would slow down the query for the latest ones.
    fixture.sql("vacuum events").await?;
    Ok(plan[0]["Plan"]["WAL Records"].as_f64().unwrap_or_default())
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let before = all(&lab, &client, "before").await?;
    let writes = insert(&fixture).await?;
    for (patient, remedy) in [("by-user", "index-user"), ("event-by-id", "partitions")] {
        let of = format!("{patient}, {remedy}");
        client.treat(patient, remedy, false).await?;
        let after = all(&lab, &client, &of).await?;
        let (mut helped, mut harmed) = (Vec::new(), Vec::new());
        for (name, before) in before.iter().filter(|(name, _)| *name != patient) {
            let after = after.get(name).copied().unwrap_or_default();
            if after * 2.0 <= *before {
                helped.push(name.clone());
            } else if after >= before * 2.0 {
                harmed.push(name.clone());
            }
        }
        lab.text(format!("{of}: helped {}; harmed {}", helped.join(", "), harmed.join(", ")));
        if remedy == "index-user" {
            let check = format!("{of}: other queries that it helps");
            lab.check(check, "at least 2", helped.len(), helped.len() >= 2);
            let check = format!("{of}: other queries that read twice the pages");
            lab.check_eq(check, 0, harmed.len());
            let more = insert(&fixture).await? / writes;
            let check = format!("{of}: log records of an insert, ÷ those without it");
            lab.check(check, "more than 1.2", more, more > 1.2);
        } else {
            let own = after.get(patient).copied().unwrap_or_default();
            let ratio = own / before.get(patient).copied().unwrap_or(f64::NAN);
            let check = format!("{of}: pages of the query itself, after ÷ before");
            lab.check(check, "at least 2", ratio, ratio >= 2.0);
            lab.figure(format!("{of}: other queries that it helps"), helped.len() as f64, "");
            lab.figure(format!("{of}: other queries that it harms"), harmed.len() as f64, "");
        }
        let undone = client.undo(patient, remedy).await?.status().as_u16();
        lab.check_eq(format!("{of}: the answer to DELETE"), 204, undone);
    }
    let back = all(&lab, &client, "after both were taken back").await?;
    // A page or two may be read more or less.
    let other = |(name, before): &(&String, &f64)| {
        let back = back.get(*name).copied().unwrap_or_default();
        (back - **before).abs() > **before / 10.0 + 2.0
    };
    let others = before.iter().filter(other).count();
    lab.check_eq("queries that read other pages after both were taken back", 0, others);
    Ok(())
}
