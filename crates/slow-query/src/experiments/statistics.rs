//! What does a wrong estimate cost, and what mends it?

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;

use super::{Rows, fixture::Fixture, try_out};
use crate::cases::client::{found, pages};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "statistics",
        "Where columns depend on each other, the planner multiplies their shares, expects one row where many come, and reads the other \
         table once for each of them. CREATE STATISTICS with ANALYZE mends it, more about each single column does not. After a load, \
         ANALYZE alone does",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: "from sessions; analyze sessions",
        with: "from sessions",
        check: "what statistics does for one-device",
    })
}

/// Rows that were expected and rows that came, of the scan of this table.
fn scanned(node: &Value, table: &str) -> Option<(f64, f64)> {
    if node["Relation Name"] == table {
        return Some((node["Plan Rows"].as_f64()?, node["Actual Rows"].as_f64()?));
    }
    node["Plans"].as_array()?.iter().find_map(|below| scanned(below, table))
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    for (patient, table) in [("one-device", "sessions"), ("after-load", "loads")] {
        let diagnosis = client.diagnose(patient).await?;
        let first = found(&diagnosis).into_iter().next().unwrap_or_default();
        lab.check_eq(format!("the first finding for {patient}"), "misestimate".to_owned(), first);
        let rows = scanned(&diagnosis["plan"][0]["Plan"], table);
        let (expected, came) = rows.unwrap_or_default();
        let off = came / expected.max(1.0);
        lab.check(
            format!("{patient}: rows that came ÷ rows that were expected"),
            "at least 10",
            off,
            off >= 10.0,
        );
    }
    let remedies = [
        ("one-device", "statistics", "helps"),
        ("one-device", "statistics-target", "does_nothing"),
        ("one-device", "no-nested-loops", "helps"),
        ("one-device", "index-user", "helps"),
        ("after-load", "analyze", "helps"),
        ("after-load", "index-user", "does_nothing"),
    ];
    let trials = try_out(&lab, &client, "Estimates, and what mends them", &remedies).await?;
    let (before, after) = trials[0].pages();
    lab.figure("pages: with the wrong estimate ÷ with extended statistics", before / after, "");
    let rows = scanned(&trials[0].after["plan"][0]["Plan"], "sessions").unwrap_or_default();
    let off = rows.1 / rows.0.max(1.0);
    let check = "with extended statistics: rows that came ÷ rows that were expected";
    lab.check(check, "between a half and two", off, (0.5..=2.0).contains(&off));
    let (before, after) = (pages(&trials[4].before), pages(&trials[4].after));
    lab.figure("pages after a load: with old statistics ÷ after ANALYZE", before / after, "");
    Ok(())
}
