//! When does a channel that is down hear of us again, and who waits for it?

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lab::{Experiment, Lab, Sabotage, Target};
use tokio::time::{Instant, sleep};

use super::{
    fcm::{FakeFcm, Fate, Sent},
    fixture::{Fixture, Options},
};
use crate::cases::PATIENCE;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Pushes that are accepted while FCM is down
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(4..=1_000))]
    pushes: u16,
    /// Seconds that FCM is down
    #[arg(long, default_value_t = 5.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Milliseconds of the first step of the schedule
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(50..=5_000))]
    first: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "backoff",
        "A channel that is down for a while: the attempts' times follow the schedule with jitter, and the \
         rest of the traffic is not delayed",
        &["--pushes", "12", "--seconds", "1.5", "--first", "200"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/retry.rs",
        replace: "const JITTER: RangeInclusive<f64> = 0.55..=1.0;",
        with: "const JITTER: RangeInclusive<f64> = 1.0..=1.0;",
        check: "the jitter is real",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture =
        Fixture::of(&lab, Options { shards: 2, backoff_ms: params.first, attempts: 10 }).await?;
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let fcm = FakeFcm::start(move |_| {
        if is_down.load(Ordering::Relaxed) {
            Fate::refused(503, "UNAVAILABLE", None)
        } else {
            Fate::TAKEN
        }
    })
    .await?;
    let (_server, client) = fixture.start(&["--role", "api"]).await?;
    let _worker = fixture.worker(&fcm).start().await?;
    let begun = Instant::now();
    let up_at = begun + Duration::from_secs_f64(params.seconds);
    for n in 0..params.pushes {
        let user = format!("user-{n}");
        client.add_device(&user, &format!("device-{n}")).await?;
        client.push(&format!("push-{n}"), &user).await?;
    }
    let wanted = usize::from(params.pushes);
    // The rest of the traffic, to the same users. FCM stays down until the last of it has arrived, and until
    // there is a schedule to be seen, which takes a busy machine longer.
    let (mut latencies, mut meanwhile) = (Vec::new(), 0_u64);
    while Instant::now() < up_at
        || meanwhile < 5
        || (tried_thrice(&fcm.sent()) < wanted && begun.elapsed() < PATIENCE)
    {
        let user = format!("user-{}", meanwhile % u64::from(params.pushes));
        let mut stream = client.stream(&user, 0).await?;
        let (sent, job) = (Instant::now(), format!("live-{meanwhile}"));
        client.notify(&job, &user).await?;
        while stream.soon().await?.job_id != job {}
        latencies.push(sent.elapsed().as_secs_f64() * 1e3);
        stream.close().await;
        meanwhile += 1;
        lab.progress(meanwhile, 0, "FCM is down, sockets are served");
        sleep(Duration::from_millis(20)).await;
    }
    down.store(false, Ordering::Relaxed);
    let sent = fcm
        .until("every push is taken", PATIENCE, |sent| {
            sent.iter().filter(|sent| sent.status == 200).count() >= wanted
        })
        .await?;

    let mut attempts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for sent in &sent {
        attempts.entry(&sent.job_id).or_default().push((sent.at - begun).as_secs_f64());
    }
    for (job, times) in attempts.iter().take(8) {
        for (n, time) in times.iter().enumerate() {
            let axes = ("seconds", "attempt");
            lab.point("Attempts of eight of the pushes", axes, job, (*time, (n + 1) as f64));
        }
    }
    let step = |n: usize| params.first as f64 / 1e3 * 2_f64.powi(i32::try_from(n).unwrap_or(30));
    let (mut early, mut shares, mut lateness) = (0, HashSet::new(), Vec::new());
    for times in attempts.values() {
        for (n, pair) in times.windows(2).enumerate() {
            let (gap, step) = (pair[1] - pair[0], step(n));
            // 20 ms, since a claim may be early by that much.
            early += u64::from(gap < step * 0.55 - 0.02);
            lateness.push((gap - step).max(0.0) * 1e3);
            if n > 0 {
                shares.insert(format!("{:.1}", (gap / step).min(1.0)));
            }
        }
    }
    let retried = attempts.values().filter(|times| times.len() >= 3).count();
    lab.figure("attempts in all", sent.len() as f64, "");
    lab.figure("of a push, at most", attempts.values().map(Vec::len).max().unwrap_or(0) as f64, "");
    let latest = lateness.iter().copied().fold(0.0, f64::max);
    lab.figure_with_target(
        "latest attempt after the end of its step",
        latest,
        "ms",
        Target::AtMost(500.0),
    );
    lab.figure("to a socket meanwhile, median", lab::load::median(latencies.clone()), "ms");
    let worst = latencies.iter().copied().fold(0.0, f64::max);
    lab.figure_with_target("to a socket meanwhile, slowest", worst, "ms", Target::AtMost(250.0));
    lab.check_eq("attempts that came before their time", 0, early);
    lab.check_eq("pushes that were tried three times or more", wanted, retried);
    lab.check(
        "the jitter is real",
        "two shares of a step or more",
        shares.len(),
        shares.len() >= 2,
    );
    // Each was waited for: had one not come while FCM refused every push, this would have ended in an error.
    lab.figure("sockets that were served while FCM was down", meanwhile as f64, "");
    let taken: Vec<_> = sent.iter().filter(|sent| sent.status == 200).collect();
    lab.check_eq("pushes that were taken, each once", wanted, taken.len());
    Ok(())
}

/// How many jobs were sent three times or more.
fn tried_thrice(sent: &[Sent]) -> usize {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for sent in sent {
        *times.entry(&sent.job_id).or_default() += 1;
    }
    times.values().filter(|&&times| times >= 3).count()
}
