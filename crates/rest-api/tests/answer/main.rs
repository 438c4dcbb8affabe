//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::process::ExitCode;

use anyhow::ensure;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::Target;
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, run},
};
use rest_api::{cases::client::Client, experiments::fixture::Fixture};

fn main() -> ExitCode {
    run(rest_api::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve().start().await?, fixture))
}

lab::tests![
    a_database_that_is_away_is_told_and_the_next_request_works,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let client = Client::at(child.url())?;
    let user = client.sign_up("Ada").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in [user.path.as_str(), "users", "readyz"] {
            let response = client.target.get(path).await?;
            ensure!(header(&response, "retry-after") == "1", "{fault:?}: {response:?}");
            problem(response, 503).await?;
        }
        ensure!(client.target.get("healthz").await?.status() == 200);
        proxy.heal();
        client.read(&user.path).await?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut child = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(child.url(), None)?).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
