//! What becomes of a message that crashes every worker that touches it?

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lab::{Experiment, Lab, Sabotage, child::Child};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    fcm::{FakeFcm, Fate, Sent},
    fixture::{Fixture, Options},
};
use crate::{
    cases::{PATIENCE, client::Client},
    retry::CRASHES,
};

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
        "A message that crashes its worker ends in the dead-letter queue and blocks nobody; so does one over which a \
         library panics or a statement fails",
        &["--others", "15", "--lease", "250"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/retry.rs",
        replace: "(true, CRASHES..) => Verdict::Bury",
        with: "(true, CRASHES..) => Verdict::Wait",
        check: "workers that died of it",
    })
    .sabotage(Sabotage {
        file: "src/deliver.rs",
        replace: "match AssertUnwindSafe(attempt).catch_unwind().await {",
        with: "match Ok::<_, ()>(attempt.await) {",
        check: "a panic: how it ended",
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
    let (died, buried, others) = tokio::select! {
        ended = supervise => return ended,
        done = async {
            let expected = usize::from(params.others) * 2;
            // Five workers die and start again meanwhile.
            let others = fcm.until("the others", PATIENCE * 3, |sent| others_of(sent) >= expected);
            let others = others.await.unwrap_or_else(|_| fcm.sent());
            anyhow::Ok((client.until(POISON, "dead").await?, fixture.buried().await?, others))
        } => done?,
    };
    let payload: serde_json::Value = serde_json::from_slice(&buried)?;
    let reason = died["last_error"].as_str().unwrap_or_default();
    let attempts = died["attempts"].as_i64().unwrap_or(0);
    let arrived = others_of(&others);
    lab.figure("attempts, with the last claim that gave it up", attempts as f64, "");
    let died = count.load(Ordering::Relaxed);
    lab.check_eq("workers that died of it", u64::from(CRASHES.unsigned_abs()), died);
    lab.check_eq("the job in the dead-letter queue", json!(POISON), payload["job_id"].clone());
    lab.check("its last error", "that workers died", reason, reason.contains("workers died"));
    lab.check_eq("notifications of others that arrived", usize::from(params.others) * 2, arrived);

    panic(&lab, params.others).await?;
    failing_statement(&lab, params.others).await
}

async fn panic(lab: &Lab, others: u16) -> anyhow::Result<()> {
    lab.progress(0, 0, "a library panics");
    // A token that is good for 2⁶⁴ seconds: the library that asks for it cannot add them to a date, and panics.
    let fixture = Fixture::of(lab, Options { shards: 1, backoff_ms: 50, attempts: 4 }).await?;
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    fcm.tokens_expire_in(u64::MAX);
    let (_server, client) = fixture.start(&["--role", "api"]).await?;
    client.add_device("victim", "device-victim").await?;
    let _worker = fixture.worker(&fcm).start().await?;
    client.push(POISON, "victim").await?;
    let (end, served) = how_it_ended(&client, others).await?;
    lab.check("a panic: how it ended", "dead, and it says so", &end, end.contains("panicked"));
    lab.check_eq("a panic: notifications of others that arrived", others + 1, served);
    Ok(())
}

async fn failing_statement(lab: &Lab, others: u16) -> anyhow::Result<()> {
    lab.progress(0, 0, "a statement fails");
    let fixture = Fixture::of(lab, Options { shards: 1, backoff_ms: 50, attempts: 4 }).await?;
    let pool = fixture.database.pool().await?;
    sqlx::raw_sql(FAILS).execute(&pool).await?;
    pool.close().await;
    let (_child, client) = fixture.start(&[]).await?;
    client.notify(POISON, "victim").await?;
    let (end, served) = how_it_ended(&client, others).await?;
    let gave_up = end.contains("gave up after 4 failures");
    lab.check("a statement that fails: how it ended", "dead, after four failures", &end, gave_up);
    lab.check_eq(
        "a statement that fails: notifications of others that arrived",
        others + 1,
        served,
    );
    Ok(())
}

/// A constraint that nobody thought of.
const FAILS: &str = r#"
    create function fails() returns trigger
    language plpgsql
    as $$ begin raise exception 'no such luck'; end $$;
    create trigger fails
    before update of position on notifications
    for each row
    when (new.job_id = 'poison')
    execute function fails();
"#;

/// Notifies the poison's own user and others, on the same shard. What the poison's last error says in the end, if it is
/// dead, and how many of the notifications were delivered.
async fn how_it_ended(client: &Client, others: u16) -> anyhow::Result<(String, u16)> {
    let names = (0..others).map(|n| format!("user-{n}")).chain(["victim".to_owned()]);
    let names: Vec<_> = names.collect();
    for user in &names {
        client.notify(&format!("beside-{user}"), user).await?;
    }
    let deadline = Instant::now() + PATIENCE / 2;
    loop {
        let mut served = 0;
        for user in &names {
            let progress = client.progress(&format!("beside-{user}")).await?;
            served += u16::from(progress["status"] == "delivered");
        }
        let poison = client.progress(POISON).await?;
        let is_dead = poison["status"] == "dead";
        if (is_dead && usize::from(served) == names.len()) || Instant::now() > deadline {
            let error = poison["last_error"].as_str().unwrap_or_default();
            let end = if is_dead { error.to_owned() } else { format!("{}", poison["status"]) };
            return Ok((end, served));
        }
        sleep(Duration::from_millis(50)).await;
    }
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
