//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::process::ExitCode;

use anyhow::ensure;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::Target;
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, run},
};
use middleware::experiments::fixture::{ADA, Fixture};
use reqwest::Method;

fn main() -> ExitCode {
    run(middleware::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve().start().await?, fixture))
}

lab::tests![
    a_database_that_is_away_is_told_and_the_next_request_works,
    a_note_is_nobody_elses,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let target = Target::new(child.url(), None)?;
    let ask = async |path: &str| {
        target.send(target.request(Method::GET, path).header("authorization", ADA)).await
    };
    ensure!(ask("notes").await?.status() == 200);
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in ["notes", "readyz"] {
            let response = ask(path).await?;
            ensure!(header(&response, "retry-after") == "1", "{fault:?}: {response:?}");
            problem(response, 503).await?;
        }
        ensure!(ask("healthz").await?.status() == 200);
        proxy.heal();
        ensure!(ask("notes").await?.status() == 200, "after {fault:?}");
    }
    Ok(())
}

async fn a_note_is_nobody_elses() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, target) = fixture.start(&["--key", "ada=a", "--key", "bob=b"]).await?;
    let ask = async |method: Method, path: &str, key: &str| {
        let request = target.request(method, path).bearer_auth(key);
        target.send(request.json(&serde_json::json!({ "text": "of Ada" }))).await
    };
    let created = ask(Method::POST, "notes", "a").await?;
    let path = header(&created, "location").to_owned();
    problem(ask(Method::GET, &path, "b").await?, 404).await?;
    ensure!(ask(Method::DELETE, &path, "b").await?.status() == 204);
    ensure!(ask(Method::GET, &path, "a").await?.status() == 200, "Bob has deleted Ada's note");
    let list = ask(Method::GET, "notes", "b").await?.text().await?;
    ensure!(!list.contains("of Ada"), "{list}");
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
