//! Does the first finding name the cause?

use std::time::{Duration, Instant};

use lab::{Experiment, Lab, Sabotage, Target, load::median};
use serde_json::Value;
use sqlx::{AssertSqlSafe, types::Json};

use super::Rows;
use super::fixture::{Busy, Fixture};
use crate::cases::client::{Client, found};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "diagnosis",
        "For twenty slow queries with a planted cause, the first finding names that cause. For ten queries whose plan has no \
         fault there is no finding",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/finding.rs",
        replace: "b.waste.total_cmp(&a.waste)",
        with: "a.waste.total_cmp(&b.waste)",
        check: "patients whose first finding is the planted cause",
    })
    .sabotage(Sabotage {
        file: "src/finding.rs",
        replace: "removed >= FEW && removed >= (TENFOLD - 1.0) * node.rows() * node.loops",
        with: "removed >= FEW || node.kind == \"Seq Scan\"",
        check: "queries without a fault that have a finding",
    })
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let patients = client.patients().await?;
    let (mut ill, mut named, mut false_alarms, mut rows) = (0, 0, 0, Vec::new());
    for (n, patient) in patients.iter().enumerate() {
        let name = patient["name"].as_str().unwrap_or_default();
        lab.progress(n as u64, patients.len() as u64, name);
        let cause = patient["cause"].as_str();
        // This one is ill only while another program keeps its row locked.
        let hold = Duration::from_millis(300);
        let _busy =
            if cause == Some("waits") { Some(Busy::start(&fixture, hold).await?) } else { None };
        let diagnosis = client.diagnose(name).await?;
        let found = found(&diagnosis);
        if let Some(cause) = cause {
            ill += 1;
            named += u32::from(found.first().is_some_and(|first| first == cause));
        } else {
            false_alarms += u32::from(!found.is_empty());
        }
        let words = diagnosis["findings"][0]["words"].as_str().unwrap_or("nothing is wrong");
        let all = found.join(", ");
        let row = [name, cause.unwrap_or("none"), &all, words];
        rows.push(row.map(str::to_owned).to_vec());
    }
    lab.table(
        "What the clinic says",
        &["patient", "planted cause", "findings", "the first in words"],
        rows,
    );
    lab.check_eq("patients whose first finding is the planted cause", ill, named);
    lab.check_eq("queries without a fault that have a finding", 0, false_alarms);
    overhead(&lab, &fixture, &client).await
}

/// What it costs to be watched, and to be compared.
async fn overhead(lab: &Lab, fixture: &Fixture, client: &Client) -> anyhow::Result<()> {
    // It takes long enough for many looks.
    let patient = client.patient("count-per-user").await?;
    let sql = patient["sql"].as_str().unwrap_or_default();
    let begin = concat!("begin; ", include_str!("../store/session.sql"));
    let explain = format!("explain (analyze, buffers, format json) {sql}");
    let (mut runs, mut diagnoses, mut looks) = (Vec::new(), Vec::new(), 0);
    let (mut bare, mut bare_whole) = (Vec::new(), Vec::new());
    for n in 0..5 {
        lab.progress(n, 5, "the clinic's overhead");
        let begun = Instant::now();
        let diagnosis = client.diagnose("count-per-user").await?;
        diagnoses.push(begun.elapsed().as_secs_f64() * 1_000.0);
        runs.extend(diagnosis["milliseconds"].as_f64());
        looks += diagnosis["waits"]["looks"].as_u64().unwrap_or_default();
        // A new session, as the clinic's is: its first query finds no page mapped.
        let mut session = fixture.connect().await?;
        let begun = Instant::now();
        sqlx::raw_sql(begin).execute(&mut session).await?;
        let plan = sqlx::query_scalar(AssertSqlSafe(explain.clone()));
        let Json(plan): Json<Value> = plan.fetch_one(&mut session).await?;
        bare_whole.push(begun.elapsed().as_secs_f64() * 1_000.0);
        bare.extend(plan[0]["Execution Time"].as_f64());
    }
    lab.check("looks at the query while it ran", "at least 5", looks, looks >= 5);
    let watched = "time of a query: while it is watched ÷ by bare EXPLAIN";
    lab.figure_with_target(watched, median(runs) / median(bare), "", Target::AtMost(1.05));
    let whole = "time of a whole diagnosis ÷ bare EXPLAIN: it opens a session, and runs the query again for its rows";
    lab.figure(whole, median(diagnoses) / median(bare_whole), "");
    Ok(())
}
