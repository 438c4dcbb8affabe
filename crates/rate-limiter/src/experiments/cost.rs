//! What does a decision cost, beside a well-kept library and beside the least that Redis has to do?

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use governor::{DefaultKeyedRateLimiter, Quota as GovernorQuota};
use lab::{
    Experiment, Lab, Sabotage, Target,
    keys::Keys,
    load::{self, Outcome, Stop},
};
use redis::aio::MultiplexedConnection;

use super::fixture::PATIENCE;
use crate::{
    algorithm::{Algorithm, Limits},
    client::Key,
    limiter::{Limiter, Store, WhenAway},
    memory::{Memory, monotonic},
    quota::{Policy, Quota},
    shared::Shared,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that ask, in turn
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    clients: u32,
    /// Requests in flight to Redis
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.2, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Measurements of each, taken in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "A decision in memory costs about as much as governor's, and one in Redis two to five times what INCR and \
         PEXPIRE in one round trip do; leases and remembered refusals take most round trips away; four of the \
         five remember a client in the space of a counter, the log in that of all its requests",
        &["--clients", "2000", "--rounds", "1", "--seconds", "0.1", "--concurrency", "8"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/memory.rs",
        replace: "self.clients.retain(|(_, counters)| whole(counters) > 0);",
        with: "self.clients.clear();",
        check: "clients that every algorithm remembers in memory",
    })
}

/// The largest limit of a log, so that requests pass.
const LIMIT: u32 = 10_000;
const WINDOW: Duration = Duration::from_mins(15);
/// What a client has taken when its memory is measured.
const TAKEN: u64 = 100;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let keys: Arc<[Key]> =
        (0..params.clients).map(|n| Key::of("client", &n.to_be_bytes())).collect();
    let part = lab.keys().await?;
    sizes(&lab, &part, &keys).await?;
    {
        let (params, lab, keys) = (params.clone(), lab.clone(), Arc::clone(&keys));
        // Work for the processor, not for the threads that wait for sockets.
        tokio::task::spawn_blocking(move || in_memory(&params, &lab, &keys)).await??;
    }
    in_redis(&params, &lab, &part, &keys).await?;
    without_redis(&params, &lab, &part).await
}

/// Units that a process takes at once, where it takes leases.
const LEASE: u64 = 100;

/// One client that all requests come from: decided in Redis each time, with leases, and when it is refused.
async fn without_redis(params: &Params, lab: &Lab, part: &Keys) -> anyhow::Result<()> {
    let limiter = |name: &str, limit: u32, window, lease| {
        let shared = Shared::new(part.url(), &format!("{}{name}:", part.prefix()), PATIENCE)?;
        let policies = vec![Policy::new("api", Quota::new(limit, window)?)?];
        let limits = Limits::new(Algorithm::Gcra, policies)?;
        let store = Store::redis(&limits, shared, WhenAway::FailClosed, (lease, 10), &monotonic());
        anyhow::Ok(Arc::new(Limiter::new(limits, store)))
    };
    // Enough units that they never run out. They flow in so slowly that a lease is used up before the quota would be
    // whole again, when it would be given up. A quota of one in a year runs out at once.
    let plenty = 100_000_000;
    let exact = limiter("exact", plenty, WINDOW, 1)?;
    let leases = limiter("leases", plenty, WINDOW, LEASE)?;
    let refused = limiter("refused", 1, Duration::from_hours(366 * 24), 1)?;
    refused.decide(Key::of("hot", b""), 1).await?;
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    let mut failed = 0;
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "one hot client");
        for (limiter, rates) in [&exact, &leases, &refused].into_iter().zip(&mut rates) {
            let clients = vec![Arc::clone(limiter); usize::from(params.concurrency)];
            let stop = Stop::After(Duration::from_secs_f64(params.seconds));
            let outcome = load::closed(clients, stop, |limiter| {
                Box::pin(async move {
                    limiter.decide(Key::of("hot", b""), 1).await?;
                    Ok(())
                })
            });
            let outcome = outcome.await?;
            failed += outcome.failed;
            rates.push(outcome.throughput());
        }
    }
    let [exact, leases, refused] = rates.map(load::median);
    let row = |name: &str, rate: f64| {
        vec![name.to_owned(), format!("{:.0}", rate / 1e3), format!("{:.1}", rate / exact)]
    };
    let rows = vec![
        row("each decision in Redis", exact),
        row(&format!("leases of {LEASE}"), leases),
        row("refused, and remembered", refused),
    ];
    lab.table("One hot client", &["how", "thousand decisions/s", "times as many"], rows);
    let target = |times| Target::AtLeast(times);
    lab.figure_with_target(
        "one hot client: leases ÷ each in Redis",
        leases / exact,
        "",
        target(5.0),
    );
    let name = "one refused client: remembered ÷ each in Redis";
    lab.figure_with_target(name, refused / exact, "", target(20.0));
    lab.check_eq("decisions about the hot client that failed", 0, failed);
    Ok(())
}

fn limits(algorithm: Algorithm) -> anyhow::Result<Limits> {
    Ok(Limits::new(algorithm, vec![Policy::new("api", Quota::new(LIMIT, WINDOW)?)?])?)
}

fn in_memory(params: &Params, lab: &Lab, keys: &[Key]) -> anyhow::Result<()> {
    let burst = NonZeroU32::new(LIMIT).context("not zero")?;
    let quota = GovernorQuota::with_period(WINDOW / LIMIT).context("not zero")?.allow_burst(burst);
    let governor = DefaultKeyedRateLimiter::<Key>::keyed(quota);
    let ours: Vec<_> = Algorithm::ALL
        .into_iter()
        .map(|algorithm| {
            let limits = limits(algorithm)?;
            Ok((algorithm, Memory::new(&limits, keys.len() * 2, monotonic())))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut speeds: Vec<Vec<f64>> = vec![Vec::new(); ours.len() + 1];
    let mut ratios = Vec::new();
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "decisions in memory, in turn");
        let theirs = speed(params, keys, |key| governor.check_key(&key).is_ok());
        speeds[ours.len()].push(theirs);
        for ((algorithm, memory), speeds) in ours.iter().zip(&mut speeds) {
            let speed = speed(params, keys, |key| memory.decide(key, 1).allowed);
            speeds.push(speed);
            if *algorithm == Algorithm::Gcra {
                ratios.push(speed / theirs);
            }
        }
    }
    let names = Algorithm::ALL.map(Algorithm::name).into_iter().chain(["governor"]);
    let rows = names.zip(speeds).map(|(name, speeds)| {
        let speed = load::median(speeds);
        lab.figure(format!("in memory: decisions a second of {name}, median"), speed, "/s");
        vec![name.to_owned(), format!("{:.2}", speed / 1e6), format!("{:.0}", 1e9 / speed)]
    });
    let columns = ["in memory, one thread", "million decisions/s", "ns each"];
    lab.table("Decisions in memory, median", &columns, rows.collect());
    let name = "decisions/s of our GCRA ÷ those of governor, median";
    lab.figure_with_target(name, load::median(ratios), "", Target::AtLeast(0.9));
    Ok(())
}

/// Decisions a second.
fn speed(params: &Params, keys: &[Key], decide: impl Fn(Key) -> bool) -> f64 {
    let (begun, time) = (Instant::now(), Duration::from_secs_f64(params.seconds));
    let (mut decisions, mut passed) = (0_u64, 0_u64);
    while begun.elapsed() < time {
        for &key in keys {
            passed += u64::from(decide(key));
        }
        decisions += keys.len() as u64;
    }
    // So that nothing is optimised away.
    std::hint::black_box(passed);
    decisions as f64 / begun.elapsed().as_secs_f64()
}

/// Each way to use connections: all requests on one, sent one behind the other; or one for each request in flight.
async fn in_redis(
    params: &Params,
    lab: &Lab,
    part: &Keys,
    keys: &Arc<[Key]>,
) -> anyhow::Result<()> {
    let mut failed = 0;
    for (way, connections) in
        [("one connection each", usize::from(params.concurrency)), ("all on one", 1)]
    {
        let (mut shared, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..connections {
            shared.push(Arc::new(Shared::new(part.url(), part.prefix(), PATIENCE)?));
            bare.push(part.connection().await?);
        }
        let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); Algorithm::ALL.len()];
        let (mut rows, mut bare_rates, mut gcra_rates) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..params.rounds {
            lab.progress(round.into(), params.rounds.into(), format!("decisions in Redis, {way}"));
            let incr = increments(params, part, &bare, keys).await?;
            for (algorithm, ratios) in Algorithm::ALL.into_iter().zip(&mut ratios) {
                let ours = decisions(params, algorithm, &shared, keys).await?;
                ratios.push(ours.throughput() / incr.throughput());
                if algorithm == Algorithm::Gcra {
                    gcra_rates.push(ours.throughput());
                }
                failed += ours.failed;
                rows.push([vec![algorithm.name().to_owned()], ours.cells()].concat());
            }
            bare_rates.push(incr.throughput());
            failed += incr.failed;
            rows.push([vec!["INCR, PEXPIRE".to_owned()], incr.cells()].concat());
        }
        let columns = [&["call"][..], &Outcome::COLUMNS].concat();
        lab.table(format!("Each measurement in Redis, {way}"), &columns, rows);
        for (name, rates) in [("INCR and PEXPIRE", bare_rates), ("decisions of gcra", gcra_rates)] {
            lab.figure(format!("{way}: {name} a second, median"), load::median(rates), "/s");
        }
        for (algorithm, ratios) in Algorithm::ALL.into_iter().zip(ratios) {
            let name =
                format!("{way}: decisions/s of {} ÷ INCR and PEXPIRE, median", algorithm.name());
            lab.figure_with_target(name, load::median(ratios), "", Target::AtLeast(0.8));
        }
    }
    lab.check_eq("calls to Redis that failed", 0, failed);
    Ok(())
}

async fn increments(
    params: &Params,
    part: &Keys,
    connections: &[MultiplexedConnection],
    keys: &Arc<[Key]>,
) -> anyhow::Result<Outcome> {
    let names = keys.iter().map(|key| format!("{}{{{key}}}:incr", part.prefix()));
    let names: Arc<[String]> = names.collect();
    let clients = (0..usize::from(params.concurrency))
        .map(|n| (connections[n % connections.len()].clone(), Arc::clone(&names), n * 37));
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    load::closed(clients.collect(), stop, |(connection, names, n)| {
        Box::pin(async move {
            *n += 1;
            let name = &names[*n % names.len()];
            // The least that an expiring counter needs, in one round trip.
            let mut least = redis::pipe();
            least.incr(name, 1).ignore();
            least.cmd("PEXPIRE").arg(name).arg(900_000).arg("NX").ignore();
            least.exec_async(connection).await?;
            Ok(())
        })
    })
    .await
}

async fn decisions(
    params: &Params,
    algorithm: Algorithm,
    shared: &[Arc<Shared>],
    keys: &Arc<[Key]>,
) -> anyhow::Result<Outcome> {
    let limits = Arc::new(limits(algorithm)?);
    let clients = (0..usize::from(params.concurrency)).map(|n| {
        (Arc::clone(&shared[n % shared.len()]), Arc::clone(&limits), Arc::clone(keys), n * 37)
    });
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    load::closed(clients.collect(), stop, |(shared, limits, keys, n)| {
        Box::pin(async move {
            *n += 1;
            shared.decide(limits, keys[*n % keys.len()], 1, 0).await?;
            Ok(())
        })
    })
    .await
}

/// Memory in Redis for a client that has taken a hundred units, and whether the process remembers as many.
async fn sizes(lab: &Lab, part: &Keys, keys: &[Key]) -> anyhow::Result<()> {
    let shared = Shared::new(part.url(), &format!("{}size:", part.prefix()), PATIENCE)?;
    let mut redis = part.connection().await?;
    let (mut rows, mut in_redis) = (Vec::new(), Vec::new());
    let mut fewest = keys.len();
    for (done, algorithm) in (0..).zip(Algorithm::ALL) {
        lab.progress(done, 5, format!("memory of {}", algorithm.name()));
        let limits = limits(algorithm)?;
        let memory = Memory::new(&limits, keys.len() * 2, monotonic());
        for &key in keys {
            for _ in 0..TAKEN {
                memory.decide(key, 1);
            }
        }
        fewest = fewest.min(memory.clients());
        for _ in 0..TAKEN {
            shared.decide(&limits, keys[0], 1, 0).await?;
        }
        let name = &shared.keys(&limits, keys[0])[0];
        let there: u64 =
            redis::cmd("MEMORY").arg("USAGE").arg(name).query_async(&mut redis).await?;
        in_redis.push(there);
        let name = algorithm.name();
        lab.figure(format!("a client of {name} in Redis"), there as f64, "bytes");
        rows.push(vec![name.to_owned(), there.to_string()]);
    }
    let columns = ["a client that has taken 100", "bytes in Redis (MEMORY USAGE)"];
    lab.table("Memory for a client", &columns, rows);
    lab.check_eq("clients that every algorithm remembers in memory", keys.len(), fewest);
    let [fixed_window, log, others @ ..] = &in_redis[..] else { anyhow::bail!("five") };
    let largest = others.iter().chain([fixed_window]).max().copied().unwrap_or_default();
    lab.check(
        "in Redis the log takes more than any other, by more than the times of 90 requests",
        format!("above {}", largest + 8 * 90),
        *log,
        *log > largest + 8 * 90,
    );
    lab.check("and none of the others more than 300 bytes", "at most 300", largest, largest <= 300);
    Ok(())
}
