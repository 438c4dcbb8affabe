//! Which claims does this answer make, and what could refute each?

pub mod bloat;
pub mod conditions;
pub mod diagnosis;
pub mod fixture;
pub mod generic_plan;
pub mod index;
pub mod limit;
pub mod memory;
pub mod n_plus_one;
pub mod partitions;
pub mod regression;
pub mod rollup;
pub mod select_star;
pub mod statistics;
pub mod subqueries;
pub mod tpc_h;
pub mod waiting;

use lab::{Experiment, Lab};

use crate::cases::client::{Client, Trial};

// The parameter of each experiment that needs a number of events. This is no doc comment, because clap would show it in place
// of the experiment's claim.
#[derive(clap::Args, Clone, Copy, Debug)]
struct Rows {
    /// Events in the tables
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(50_000..=200_000))]
    rows: i64,
}

impl Rows {
    /// The fewest events that show every effect.
    const QUICK: &'static [&'static str] = &["--rows", "50000"];
}

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        diagnosis::experiment(),
        index::experiment(),
        conditions::experiment(),
        select_star::experiment(),
        subqueries::experiment(),
        limit::experiment(),
        partitions::experiment(),
        memory::experiment(),
        statistics::experiment(),
        generic_plan::experiment(),
        n_plus_one::experiment(),
        waiting::experiment(),
        bloat::experiment(),
        rollup::experiment(),
        regression::experiment(),
        tpc_h::experiment(),
    ]
}

/// Tries remedies out, checks each effect, and shows them in a table.
async fn try_out(
    lab: &Lab,
    client: &Client,
    title: &str,
    remedies: &[(&str, &str, &str)],
) -> anyhow::Result<Vec<Trial>> {
    let (mut trials, mut rows) = (Vec::new(), Vec::new());
    for (n, (patient, remedy, effect)) in remedies.iter().enumerate() {
        lab.progress(n as u64, remedies.len() as u64, format!("{patient}: {remedy}"));
        let trial = client.try_out(patient, remedy).await?;
        let check = format!("what {remedy} does for {patient}");
        lab.check_eq(check, (*effect).to_owned(), trial.effect.clone());
        let (before, after) = trial.pages();
        let mut row = vec![(*patient).to_owned(), (*remedy).to_owned(), trial.effect.clone()];
        row.extend([before, after].map(|pages| pages.to_string()));
        rows.push(row);
        trials.push(trial);
    }
    lab.table(title, &["patient", "remedy", "effect", "pages before", "pages after"], rows);
    Ok(trials)
}
