//! Does the checker find violations, and only violations? It judges the histories of all other experiments.

use std::time::Instant;

use lab::{Experiment, Lab, Sabotage, Target};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    generate::{PLANTS, bad, good},
    published,
};
use crate::checker::check;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Histories of each kind
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(5..=10_000))]
    histories: u64,
    /// Operations in each of them
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(20..=500))]
    operations: u64,
    /// Operations in the history that is timed
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=20_000))]
    long: u64,
    /// Makes other histories
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "checker",
        "The checker finds every planted violation, passes every history that a correct register made, and agrees with \
         the published verdicts on 106 histories",
        &[],
        run,
    )
    .sabotage(Sabotage {
        file: "src/checker.rs",
        replace: "Action::Read(value) => (value.as_deref() == state).then_some(state),",
        with: "Action::Read(value) => value.as_deref().is_none_or(|it| Some(it) == state).then_some(state),",
        check: "planted violations that were found",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(params.seed);
    let operations = usize::try_from(params.operations)?;
    let (mut passed, mut planted, mut found) = (0, 0, 0);
    let mut of_each = PLANTS.map(|(name, _)| (name, 0, 0));
    for round in 0.. {
        let is_checked = round < params.histories;
        if !is_checked && planted == params.histories {
            break;
        }
        let good = good(&mut random, operations);
        if is_checked {
            lab.progress(round, params.histories, "histories are checked");
            passed += u64::from(check(&good).is_ok());
        }
        // A short history may have no place for this violation. Then a later one gets it.
        let number = usize::try_from(round)? % PLANTS.len();
        if planted < params.histories
            && let Some(bad) = bad(&mut random, &good, PLANTS[number])
        {
            let is_found = u64::from(check(&bad).is_err());
            planted += 1;
            found += is_found;
            of_each[number].1 += 1;
            of_each[number].2 += is_found;
        }
    }
    lab.check_eq("histories without a violation that passed", params.histories, passed);
    lab.check_eq("planted violations that were found", planted, found);
    let rows = of_each.map(|(name, planted, found)| {
        vec![name.to_owned(), planted.to_string(), found.to_string()]
    });
    lab.table("What a read was changed to", &["a read returns", "planted", "found"], rows.to_vec());
    let published = published::all()?;
    let agrees =
        published.iter().filter(|it| check(&it.history).is_ok() == it.linearizable).count();
    lab.check_eq("published histories with the same verdict", published.len(), agrees);
    let long = good(&mut random, usize::try_from(params.long)?);
    let begun = Instant::now();
    let verdict = check(&long);
    let seconds = begun.elapsed().as_secs_f64();
    lab.check_eq("the long history is linearizable", true, verdict.is_ok());
    let name = format!("time to check {} operations", params.long);
    lab.figure_with_target(name, seconds, "s", Target::AtMost(1.0));
    Ok(())
}
