//! Why does the same query read more pages each day, though there are no more rows?

use lab::{Experiment, Lab, Sabotage};

use super::fixture::Fixture;
use crate::cases::client::pages;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// How often each row is updated: a round stands for some hours
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=50))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "bloat",
        "Without VACUUM each round of updates adds a table's worth of pages, and the same query reads them all. VACUUM after each round \
         ends that, but not while a transaction that began before is open; and it gives nothing back",
        &["--rounds", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/plan.rs",
        replace: "self.hit + self.read + self.temp()",
        with: "self.read + self.temp()",
        check: "without VACUUM: pages after the last round ÷ before",
    })
}

const TITLE: &str = "The same query, round after round";
const AXES: (&str, &str) = ("rounds of updates", "pages");
const NONE: &str = "without VACUUM";
const VACUUM: &str = "with VACUUM";
const HELD: &str = "with VACUUM, beside a long transaction";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let most = f64::from(params.rounds);
    for (n, how) in [NONE, VACUUM, HELD].into_iter().enumerate() {
        lab.progress(n as u64, 3, how);
        let fixture = Fixture::of(&lab, 20_000).await?;
        let (_child, client) = fixture.start().await?;
        let mut reader = fixture.connect().await?;
        if how == HELD {
            let begin = "begin isolation level repeatable read; select count(*) from sessions";
            sqlx::raw_sql(begin).execute(&mut reader).await?;
        }
        let before = pages(&client.diagnose("per-city").await?);
        lab.point(TITLE, AXES, how, (0.0, before));
        let mut after = before;
        for round in 1..=params.rounds {
            fixture.sql("update users set plan = plan").await?;
            if how != NONE {
                fixture.sql("vacuum users").await?;
            }
            after = pages(&client.diagnose("per-city").await?);
            lab.point(TITLE, AXES, how, (f64::from(round), after));
        }
        let ratio = after / before;
        let check = format!("{how}: pages after the last round ÷ before");
        if how == VACUUM {
            lab.check(check, "at most 2.5", ratio, ratio <= 2.5);
            continue;
        }
        // The first round fills what was free.
        lab.check(check, format!("at least {}", most - 1.0), ratio, ratio >= most - 1.0);
        if how == HELD {
            sqlx::raw_sql("commit").execute(&mut reader).await?;
            fixture.sql("vacuum users").await?;
            let back = pages(&client.diagnose("per-city").await?) / after;
            let check =
                "when the transaction has ended and VACUUM has run: pages, of those before that";
            lab.check(check, "at least 0.9", back, back >= 0.9);
        }
    }
    Ok(())
}
