//! Does the health check do what its table of calls says?

use std::process::ExitCode;

use anyhow::ensure;
use lab::{
    child::Child,
    harness::{Outcome, Served, run},
};

fn main() -> ExitCode {
    run(health_check::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program for its cases.
async fn serve_for_cases() -> anyhow::Result<Served> {
    Ok(Served::new(Child::serve("health-check").start().await?, ()))
}

lab::tests![the_answer_says_ok];

async fn the_answer_says_ok() -> Outcome {
    let child = Child::serve("health-check").start().await?;
    let text = reqwest::get(format!("{}/healthz", child.url())).await?.text().await?;
    ensure!(text == "ok\n", "{text}");
    Ok(())
}
