//! Does the service do what cannot be tried from outside, or not with the options that its table of calls (`conform`) is
//! tried with?

use std::process::ExitCode;

use https_server::experiments::fixture::{Fixture, with_challenge};
use lab::harness::{Served, run};

fn main() -> ExitCode {
    run(https_server::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let Fixture { child, https, home, .. } = Fixture::start_in(with_challenge()?, &[]).await?;
    let words = home.path().display().to_string();
    let url = format!("https://localhost:{}", https.port());
    Ok(Served::new(child, home).word("home", words).word("https", url))
}

lab::tests![];
