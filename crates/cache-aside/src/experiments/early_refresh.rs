//! A hot user expires, and its reload takes a while. Who waits for it?

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use conform::target::eventually;
use lab::{
    Experiment, Lab, Sabotage, Target,
    fault::{Fault, Proxy},
    load::{self, Outcome},
};

use super::fixture::{Fixture, NO_TIMEOUTS};
use crate::cases::client::{Client, is_hit};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Readers of one user that come in a second
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=5_000))]
    readers_per_second: u32,
    /// Seconds that the user stays in Redis
    #[arg(long, default_value_t = 2.0, value_parser = lab::experiment::seconds)]
    ttl: f64,
    /// Expiries to live through
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    expiries: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "early-refresh",
        "With XFetch no reader waits for a hot key's reload; without it the tail shows every expiry",
        &["--ttl", "1", "--expiries", "5", "--readers-per-second", "100"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/ttl.rs",
        replace: "-load_time.as_secs_f64() * beta * rand.ln()",
        with: "load_time.as_secs_f64() * beta * rand.ln()",
        check: "with XFetch: readers that found it expired, though others had come before them",
    })
}

/// How far away the database is, in one direction. A reload takes two round trips.
const FAR: Duration = Duration::from_millis(50);
const TITLE: &str = "The slowest reader of each tenth of a second";
const AXES: (&str, &str) = ("seconds", "milliseconds");

/// When each reader came, how long it took, and whether it was a hit.
type Log = Arc<Mutex<Vec<(Duration, Duration, bool)>>>;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (without, with) = tokio::try_join!(
        hot(&params, &lab, "without XFetch", "0"),
        hot(&params, &lab, "with XFetch", "1"),
    )?;
    let expiries = u64::from(params.expiries);
    lab.check(
        "without XFetch: readers that found it expired",
        // One for each life. But if a reload takes long, fewer lives fit into the time.
        format!("{} or more, one for every other expiry", expiries.div_ceil(2)),
        without.misses,
        without.misses >= expiries.div_ceil(2),
    );
    // There are none on a machine that keeps its pace. On a busy machine a reload may take much longer than the last
    // one did, and then it began too late. So the figure's target is none, and the check only asks that it is the
    // exception.
    let found = with.expired as f64;
    lab.figure_with_target(
        "with XFetch: readers that found it expired",
        found,
        "",
        Target::AtMost(0.0),
    );
    lab.check(
        "with XFetch: readers that found it expired, though others had come before them",
        format!("fewer than three quarters of the {} without", without.misses),
        with.expired,
        // A busy machine may be late for some of them.
        4 * with.expired < 3 * without.misses,
    );
    lab.check(
        "with XFetch: queries, the first included",
        format!("{expiries} or more, one for each life"),
        with.queries,
        with.queries >= expiries,
    );
    lab.check_eq("readers that failed", 0, without.failed + with.failed);
    Ok(())
}

struct Hot {
    /// Answers that were no hit.
    misses: u64,
    /// Of these, the ones shortly before which other readers had come. One of those could have reloaded.
    expired: u64,
    failed: u64,
    queries: u64,
}

async fn hot(params: &Params, lab: &Lab, name: &str, beta: &str) -> anyhow::Result<Hot> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(1).await?;
    let before = fixture.queries().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let ttl = params.ttl.to_string();
    let mut child = fixture
        .serve()
        .env("DATABASE_URL", proxy.url(fixture.database.url())?)
        .args(&["--ttl", &ttl, "--jitter", "0", "--beta", beta])
        .args(&NO_TIMEOUTS)
        .start()
        .await?;
    proxy.set(Fault::Delay(FAR));
    let client = Client::at(child.url())?;
    // Until then reads go around Redis, and would count as misses that no expiry has caused.
    eventually("the user is read from Redis", || async {
        Ok(is_hit(&client.read(1).await?).then_some(()))
    })
    .await?;
    let (log, begun) = (Log::default(), Instant::now());
    let time = Duration::from_secs_f64(params.ttl * (f64::from(params.expiries) + 0.3));
    let outcome = load::open(params.readers_per_second.into(), time, 10_000, |arrival| {
        let (client, log, lab) = (client.clone(), Arc::clone(&log), lab.clone());
        let every = u64::from(params.readers_per_second) / 2;
        async move {
            let came = Instant::now();
            let read = client.read(1).await?;
            ensure!(read.status() == 200, "{}", read.status());
            let entry = (came - begun, came.elapsed(), is_hit(&read));
            log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
            if arrival.number % every == 0 {
                lab.progress(came.duration_since(begun).as_secs(), time.as_secs(), "seconds");
            }
            Ok(())
        }
    })
    .await?;
    child.stop().await?;
    let queries = fixture.queries().await? - before;
    let log = std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
    draw(lab, name, &log);
    tell(lab, name, &outcome, queries);
    let expired = log.iter().filter(|(came, _, hit)| {
        // If this machine held up the readers before the expiry, nobody could have reloaded. And if a hit took as long as the
        // way to the database, the machine has too much to do: then a reload takes much longer than the last one did.
        let before = came.saturating_sub(Duration::from_millis(800))..*came;
        let hits = log.iter().filter(|(came, took, _)| before.contains(&(*came + *took)));
        let slowest = hits.clone().map(|(_, took, _)| *took).max().unwrap_or_default();
        !hit && hits.count() >= params.readers_per_second as usize * 4 / 10 && slowest < FAR
    });
    let expired = expired.count() as u64;
    let misses = log.iter().filter(|(_, _, hit)| !hit).count() as u64;
    Ok(Hot { misses, expired, failed: outcome.failed, queries })
}

fn draw(lab: &Lab, name: &str, log: &[(Duration, Duration, bool)]) {
    let mut slowest: Vec<f64> = Vec::new();
    for (came, took, _) in log {
        let tenth = usize::try_from(came.as_millis() / 100).unwrap_or(0);
        slowest.resize(slowest.len().max(tenth + 1), 0.0);
        slowest[tenth] = slowest[tenth].max(took.as_secs_f64() * 1e3);
    }
    for (tenth, slowest) in slowest.into_iter().enumerate() {
        lab.point(TITLE, AXES, name, (tenth as f64 / 10.0, slowest));
    }
}

fn tell(lab: &Lab, name: &str, outcome: &Outcome, queries: u64) {
    lab.figure(format!("{name}: p50"), outcome.percentile(50.0), "ms");
    let tail = format!("{name}: p99.9");
    if name == "with XFetch" {
        // A reload takes at least four times the distance. A reader that was quicker has not waited for one.
        let reload = 4.0 * FAR.as_secs_f64() * 1e3;
        let target = Target::AtMost(reload / 2.0);
        lab.figure_with_target(tail, outcome.percentile(99.9), "ms", target);
    } else {
        lab.figure(tail, outcome.percentile(99.9), "ms");
    }
    lab.figure(format!("{name}: queries"), queries as f64, "");
}
