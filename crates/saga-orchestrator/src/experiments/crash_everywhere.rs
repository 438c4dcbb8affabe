//! Is there a moment at which the orchestrator must not die?

use lab::{Experiment, Lab, Sabotage};

use super::crash::{self, Path, What};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Which way the orders go
    #[arg(long, default_value = "both", value_parser = ["success", "failure", "both"])]
    path: String,
    /// Orchestrators that are killed side by side, each with a database of its own
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=32))]
    lanes: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "crash-everywhere",
        "SIGKILL of the orchestrator just before and just after every message between it and its database and \
         participants: each order ends, each effect happened exactly once or was undone exactly once, money and \
         stock add up",
        &["--path", "failure", "--lanes", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store/calls.rs",
        replace: r"on conflict (order_id) do update set undo_key = excluded.undo_key
                where calls.undo_key is null",
        with: "on conflict (order_id) do update set undo_key = excluded.undo_key",
        check: "orders of which an effect happened twice, or was not undone once",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let paths: Vec<_> = [Path::Success, Path::Failure]
        .into_iter()
        .filter(|path| params.path == "both" || params.path == path.name())
        .collect();
    crash::everywhere(&lab, &paths, &[0, 1, 2, 3], params.lanes, What::Orchestrator).await
}
