//! What does SELECT * cost? For some queries nothing, and for others almost all.

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;

use super::{Rows, fixture::Fixture, try_out};
use crate::cases::client::{found, kinds};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "select-star",
        "Naming the columns does nothing for a lookup by key, and nothing for a scan. It helps where an index holds all that is named, \
         and where long values were sent for nothing; and the plan shows nothing of the latter",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/treatment.rs",
        replace: "read + (self.tally.bytes / PAGE) as f64",
        with: "read",
        check: "what fewer-columns does for profiles",
    })
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let remedies = [
        ("by-id", "fewer-columns", "does_nothing"),
        ("by-user", "fewer-columns", "does_nothing"),
        ("half-a-day", "fewer-columns", "helps"),
        ("profiles", "fewer-columns", "helps"),
    ];
    let trials = try_out(&lab, &client, "SELECT *, and the columns by name", &remedies).await?;
    let only = kinds(&trials[2].after).contains(&"Index Only Scan".to_owned());
    lab.check_eq("half-a-day, by name: the table is not read", true, only);
    let (star, named) = trials[3].pages();
    lab.check_eq("profiles: pages that the plan of SELECT * shows more", 0.0, star - named);
    let found = found(&client.diagnose("profiles").await?);
    lab.check_eq("profiles: findings", 0, found.len());
    let bytes = |run: &Value| run["result"]["bytes"].as_f64().unwrap_or(f64::NAN);
    for (at, name) in [(0, "by-id"), (3, "profiles")] {
        let ratio = bytes(&trials[at].before) / bytes(&trials[at].after);
        lab.figure(format!("{name}: bytes of SELECT * ÷ bytes of what is used"), ratio, "");
    }
    Ok(())
}
