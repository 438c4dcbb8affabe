//! Does the service do what its table of calls (`src/cases`) cannot say? With options of its own, several processes, a
//! provider of pushes, a look into its servers, or a fault.

mod attempts;
mod outages;
mod processes;
mod pushes;
mod queues;
mod streams;

use std::process::ExitCode;

use lab::{
    child::Child,
    harness::{Served, run},
};
use notification_worker::{
    cases::client::Client,
    experiments::fixture::{Fixture, QUICK},
};

fn main() -> ExitCode {
    let tests = [
        streams::tests(),
        pushes::tests(),
        attempts::tests(),
        queues::tests(),
        outages::tests(),
        processes::tests(),
    ];
    let tests = tests.into_iter().flatten().collect();
    run(notification_worker::answer(), || Box::pin(serve_for_cases()), tests)
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let (fixture, child, _client) = start(&[]).await?;
    Ok(Served::new(child, fixture))
}

/// A process of the test's own, and a client of it. The fixture has to outlive both.
async fn start(options: &[&str]) -> anyhow::Result<(Fixture, Child, Client)> {
    let fixture = Fixture::fresh(QUICK).await?;
    let (child, client) = fixture.start(options).await?;
    Ok((fixture, child, client))
}
