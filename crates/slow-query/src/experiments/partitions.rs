//! Does it help to partition the table? The queries by the partition key, and nobody else.

use lab::{Experiment, Lab, Sabotage};

use super::{fixture::Fixture, try_out};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Events in the tables
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(50_000..=200_000))]
    events: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "partitions",
        "Partitions help a query whose filter is the partition key and has no index. Where there is an index on the key, and for other \
         filters, they do nothing. A lookup by another key asks each partition",
        &["--events", "50000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/treatment.rs",
        replace: "} else if after >= before * 2.0 {",
        with: "} else if after >= before * 200.0 {",
        check: "what partitions does for event-by-id",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.events).await?;
    let (_child, client) = fixture.start().await?;
    let remedies = [
        ("buyers", "partitions", "helps"),
        ("one-day", "partitions", "does_nothing"),
        ("by-user", "partitions", "does_nothing"),
        ("event-by-id", "partitions", "harms"),
        // For comparison: an index on the same rows.
        ("buyers", "index-purchases", "helps"),
        ("rare-latest", "partitions", "helps"),
        ("rare-latest", "index-imports", "helps"),
    ];
    let title = "Partitions, by kind for buyers and rare-latest, by day for the others";
    let trials = try_out(&lab, &client, title, &remedies).await?;
    let more = |at: usize| {
        let (before, after): (f64, f64) = trials[at].pages();
        after / before
    };
    lab.figure("pages of a lookup by id: with partitions by day ÷ without", more(3), "");
    lab.figure("pages of a day: with partitions by day ÷ with an index", more(1), "");
    lab.figure("pages of the buyers: without partitions by kind ÷ with them", 1.0 / more(0), "");
    Ok(())
}
