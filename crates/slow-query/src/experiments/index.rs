//! When does an index help, and when does it only cost?

use lab::{Experiment, Lab, Sabotage};

use super::{Rows, fixture::Fixture, try_out};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "index",
        "An index on the column of the filter replaces a full scan by a few pages. For a value that nine of ten rows have, on \
         another column, or beside a LIMIT in another order, it does nothing",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/treatment.rs",
        replace: "if after * 2.0 <= before {",
        with: "if after <= before {",
        check: "what index-kind does for views",
    })
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let remedies = [
        ("by-user", "index-user", "helps"),
        ("by-user", "index-user-id", "helps"),
        ("by-user", "index-kind", "does_nothing"),
        ("views", "index-kind", "does_nothing"),
        ("rare-latest", "index-kind", "does_nothing"),
        ("rare-latest", "index-kind-created", "helps"),
        ("buyers", "index-purchases", "helps"),
        ("never-seen", "index-user", "does_nothing"),
    ];
    let trials = try_out(&lab, &client, "Indexes, and what they do", &remedies).await?;
    let (before, after) = trials[0].pages();
    let check = "pages of one user's events with the index";
    lab.check(check, format!("a tenth of {before} at most"), after, after * 10.0 <= before);
    lab.figure("pages of one user's events: without the index ÷ with it", before / after, "");
    Ok(())
}
