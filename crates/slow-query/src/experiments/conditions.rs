//! Which conditions can no index serve, and how are they written so that one can?

use lab::{Experiment, Lab, Sabotage};

use super::{Rows, fixture::Fixture, try_out};

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "conditions",
        "An index on the column does not serve a function, COALESCE or a cast around it, nor one side of an OR. A range, the right \
         type, an index on the expression, or an index for each side does. UNION without these indexes reads the table twice",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/patients.json",
        replace: "create index email_or_name_email on users (email); create index email_or_name_name",
        with: "create index email_or_name_email on users (city); create index email_or_name_name",
        check: "what two-indexes does for email-or-name",
    })
}

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    let remedies = [
        ("email-or-name", "index-email", "does_nothing"),
        ("email-or-name", "union", "harms"),
        ("email-or-name", "two-indexes", "helps"),
        ("email-or-name", "union-indexes", "helps"),
        ("any-case", "index-email", "does_nothing"),
        ("any-case", "ilike", "does_nothing"),
        ("any-case", "index-lower", "helps"),
        ("by-hour", "index-again", "does_nothing"),
        ("by-hour", "range", "helps"),
        ("by-hour", "index-hour", "helps"),
        ("coalesce", "index-amount", "does_nothing"),
        ("coalesce", "index-coalesce", "helps"),
        ("id-as-number", "index-again", "does_nothing"),
        ("id-as-number", "right-type", "helps"),
    ];
    let trials = try_out(&lab, &client, "Conditions, and how they are mended", &remedies).await?;
    let mut least = f64::INFINITY;
    for (trial, _) in trials.iter().zip(&remedies).filter(|(_, remedy)| remedy.2 == "helps") {
        let (before, after) = trial.pages();
        least = least.min(before / after);
    }
    let check = "pages of a mended condition: before ÷ after, the least of them";
    lab.check(check, "at least 10", least, least >= 10.0);
    Ok(())
}
