//! What becomes of a message that crashes every worker that touches it?

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lab::{Experiment, Lab, Sabotage, child::Child};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    fcm::{FakeFcm, Fate, Sent},
    fixture::{Fixture, Options},
};
use crate::{cases::PATIENCE, retry::CRASHES};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Users with a notification each, before and after the poison, on the same shard
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    others: u16,
    /// Milliseconds after which a dead worker's shards go to the next
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(100..=5_000))]
    lease: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "poison",
        "A message that crashes its worker ends in the dead-letter queue and blocks nobody",
        &["--others", "15", "--lease", "250"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/retry.rs",
        replace: "(true, CRASHES..) => Verdict::Bury",
        with: "(true, CRASHES..) => Verdict::Wait",
        check: "workers that died of it",
    })
}

const POISON: &str = "poison";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // One shard: nobody is spared because they live elsewhere.
    let fixture = Fixture::of(&lab, Options { shards: 1, backoff_ms: 50, attempts: 8 }).await?;
    // FCM stands for whatever it is in the message that kills: when it comes here, its worker dies.
    let (touched, mut deaths) = mpsc::channel(1);
    let fcm = FakeFcm::start(move |sent| {
        if sent.job_id != POISON {
            return Fate::TAKEN;
        }
        let _ = touched.try_send(());
        // Long enough for the kill: no worker ever hears the answer.
        Fate::slow(Duration::from_mins(1))
    })
    .await?;
    let (_server, client) = fixture.start(&["--role", "api"]).await?;
    let lease = params.lease.to_string();

    let user = |n: u16| format!("user-{n}");
    for n in 0..params.others {
        client.add_device(&user(n), &format!("device-{n}")).await?;
        client.push(&format!("before-{n}"), &user(n)).await?;
    }
    client.add_device("victim", "device-victim").await?;
    client.push(POISON, "victim").await?;
    for n in 0..params.others {
        client.push(&format!("after-{n}"), &user(n)).await?;
    }

    // Now that all of it is there: a slow machine that is still posting would let the poison die before them.
    let mut worker = fixture.worker(&fcm).args(&["--lease-ms", &lease]).start().await?;
    let count = AtomicU64::new(0);
    let supervise = supervise(&lab, &mut worker, &mut deaths, &count);
    let (died, buried, others_first) = tokio::select! {
        ended = supervise => return ended,
        done = async {
            let expected = usize::from(params.others) * 2;
            let others = fcm.until("the others", PATIENCE, |sent| {
                others_of(sent) >= expected
            });
            let others = others.await;
            // What the others had not to wait for.
            let waiting = client.progress(POISON).await?["status"] != "dead";
            anyhow::Ok((client.until(POISON, "dead").await?, fixture.buried().await?, (others, waiting)))
        } => done?,
    };
    let (payload, reasons) = buried;
    let payload: serde_json::Value = serde_json::from_slice(&payload)?;
    let attempts = died["attempts"].as_i64().unwrap_or(0);
    let (others, waiting) = others_first;
    let others = others.unwrap_or_default();
    let arrived = others_of(&others);
    lab.text(format!("Buried with these reasons: {reasons}"));
    lab.figure("attempts, with the last claim that gave it up", attempts as f64, "");
    let died = count.load(Ordering::Relaxed);
    lab.check_eq("workers that died of it", u64::from(CRASHES.unsigned_abs()), died);
    lab.check_eq("the job in the dead-letter queue", json!(POISON), payload["job_id"].clone());
    lab.check(
        "its reasons are with it",
        "that workers died",
        &reasons,
        reasons.contains("workers died"),
    );
    lab.check_eq("notifications of others that arrived", usize::from(params.others) * 2, arrived);
    lab.check_eq("all of them before it was given up", true, waiting);
    Ok(())
}

/// How many different jobs came, the poison aside. One that was in flight beside it may have come twice.
fn others_of(sent: &[Sent]) -> usize {
    let jobs = sent.iter().map(|sent| sent.job_id.as_str()).filter(|job| *job != POISON);
    jobs.collect::<HashSet<_>>().len()
}

/// Kills the worker when it touches the poison, and starts it again, as an orchestrator does.
async fn supervise(
    lab: &Lab,
    worker: &mut Child,
    deaths: &mut mpsc::Receiver<()>,
    count: &AtomicU64,
) -> anyhow::Result<()> {
    while deaths.recv().await.is_some() {
        worker.kill().await?;
        let died = count.fetch_add(1, Ordering::Relaxed) + 1;
        lab.progress(died, 0, "workers dead of poison");
        worker.restart().await?;
    }
    anyhow::bail!("FCM has gone")
}
