//! Do the services do what their table of calls (`src/cases`) cannot say? With options of their own, several processes,
//! other flows, a look into their databases, or a fault.

mod faults;
mod flows;
mod orders;
mod processes;

use std::process::ExitCode;

use lab::{
    child::Child,
    harness::{Served, run},
};
use saga_orchestrator::{
    cases::client::Client,
    experiments::fixture::{self, Fixture},
};
use sqlx::{Connection, PgConnection};

/// Options for an orchestrator that soon tries again.
const IMPATIENT: [&str; 4] = ["--backoff-ms", "20", "--longest-backoff-ms", "100"];

fn main() -> ExitCode {
    let tests = [orders::tests(), processes::tests(), flows::tests(), faults::tests()]
        .into_iter()
        .flatten();
    run(saga_orchestrator::answer(), || Box::pin(serve_for_cases()), tests.collect())
}

/// The program as its cases want it. After a kill, the next orchestrator waits for the lease of the dead one.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let (fixture, child, _client) = start(&["--lease-ms", "2000"]).await?;
    Ok(Served::new(child, fixture))
}

/// All services in one process of the test's own, and a client of it. The fixture has to outlive both.
async fn start(options: &[&str]) -> anyhow::Result<(Fixture, Child, Client)> {
    let fixture = Fixture::fresh().await?;
    let (child, client) = fixture::start(fixture.serve().args(&IMPATIENT).args(options)).await?;
    Ok((fixture, child, client))
}

/// What this statement counts in this database.
async fn count(url: &str, statement: &'static str) -> anyhow::Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let count = sqlx::query_scalar(statement).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(count)
}
