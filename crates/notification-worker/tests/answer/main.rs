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
    notification::{JobId, Message, UserId},
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

/// A user of this shard of whose messages this holds.
fn user_of(
    fixture: &Fixture,
    shard: u16,
    is_wanted: impl Fn(&Message) -> bool,
) -> anyhow::Result<String> {
    for n in 0..10_000 {
        let user_id = UserId::try_from(format!("user-{n}")).map_err(anyhow::Error::msg)?;
        let job_id = JobId::try_from(format!("job-{n}")).map_err(anyhow::Error::msg)?;
        let message = Message { job_id, user_id, alone: false };
        if fixture.topology.shard_of(&message.user_id) == shard && is_wanted(&message) {
            return Ok(message.user_id.as_str().to_owned());
        }
    }
    anyhow::bail!("there is no such user")
}

/// A process of the test's own, and a client of it. The fixture has to outlive both.
async fn start(options: &[&str]) -> anyhow::Result<(Fixture, Child, Client)> {
    let fixture = Fixture::fresh(QUICK).await?;
    let (child, client) = fixture.start(options).await?;
    Ok((fixture, child, client))
}
