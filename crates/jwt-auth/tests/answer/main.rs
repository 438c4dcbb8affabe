//! Does the service do what its table of calls (`src/cases`) cannot say? With options of its own, a look into its
//! servers, or a fault.

mod guessing;
mod passwords;
mod sessions;
mod verifiers;
mod wycheproof;

use std::process::ExitCode;

use jwt_auth::{cases::client::Client, experiments::fixture::Fixture};
use lab::{
    child::Child,
    harness::{Served, run},
};

fn main() -> ExitCode {
    let tests = [
        guessing::tests(),
        passwords::tests(),
        sessions::tests(),
        verifiers::tests(),
        wycheproof::tests(),
    ];
    run(jwt_auth::answer(), || Box::pin(serve_for_cases()), tests.into_iter().flatten().collect())
}

/// The program as its cases want it: all failed logins come from one client here.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let (fixture, child, _client) = start(&["--failures-per-client", "1000000"]).await?;
    Ok(Served::new(child, fixture))
}

/// A service of the test's own, and a client of it. The fixture has to outlive both.
async fn start(options: &[&str]) -> anyhow::Result<(Fixture, Child, Client)> {
    let fixture = Fixture::fresh().await?;
    let (child, client) = fixture.start(options).await?;
    Ok((fixture, child, client))
}
