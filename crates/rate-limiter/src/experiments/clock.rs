//! What if the clocks of two processes disagree?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lab::{Experiment, Lab, Sabotage};
use redis::aio::MultiplexedConnection;

use super::{fixture::PATIENCE, naive::OwnTime};
use crate::{
    algorithm::{Algorithm, Limits},
    client::Key,
    limiter::{Limiter, Store, WhenAway},
    memory::Clock,
    quota::{Micros, Policy, Quota},
    shared::Shared,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Minutes between the two clocks
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(31..=10_000))]
    minutes: u64,
    /// Requests in 15 minutes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    limit: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "clock",
        "Two limiters whose clocks disagree by an hour let exactly the limit through when Redis tells the time; \
         where each writes its own time they let through twice the limit, and then the one that is behind is \
         locked out for the hour",
        &["--limit", "20"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/limiter.rs",
        replace: "Self::Redis { shared, leases, fallback }",
        with: "drop((shared, leases, fallback));
        Self::Memory(Memory::new(limits, max_keys, Arc::clone(clock)))",
        check: "token-bucket: let through when Redis tells the time",
    })
}

const WINDOW: Duration = Duration::from_mins(15);
/// Some moment in 2026.
const NOW: Micros = 1_790_000_000_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let keys = lab.keys().await?;
    let ahead = params.minutes * 60_000_000;
    let limit = u64::from(params.limit);
    let mut rows = Vec::new();
    for (done, algorithm) in (0..).zip(Algorithm::ALL) {
        lab.progress(done, 5, algorithm.name());
        let (ours, back) = {
            let limits = Limits::new(
                algorithm,
                vec![Policy::new("api", Quota::new(params.limit, WINDOW)?)?],
            )?;
            let limiter = |clock: Clock| {
                let shared = Shared::new(keys.url(), keys.prefix(), PATIENCE)?;
                let store = Store::redis(&limits, shared, WhenAway::FailClosed, (1, 10), &clock);
                anyhow::Ok(Limiter::new(limits.clone(), store))
            };
            let behind = limiter(Arc::new(|| NOW))?;
            let ahead = limiter(Arc::new(move || NOW + ahead))?;
            let (mut passed, key, begun) = (0, Key::of("clock", b""), Instant::now());
            for _ in 0..2 * limit {
                for limiter in [&behind, &ahead] {
                    passed += u64::from(limiter.decide(key, 1).await?.allowed);
                }
            }
            // Units that flowed back meanwhile. On a slow machine there are more; they are no second limit.
            (passed, flowed_back(limit, begun.elapsed()))
        };
        let key = format!("{}own:{}", keys.prefix(), algorithm.name());
        let mut redis = keys.connection().await?;
        let naive = with_own_time(&mut redis, algorithm, &key, limit, ahead).await?;
        rows.push(vec![
            algorithm.name().to_owned(),
            ours.to_string(),
            naive.let_through.to_string(),
            naive.after_half_an_hour.to_string(),
        ]);
        let name = algorithm.name();
        lab.check(
            format!("{name}: let through when Redis tells the time"),
            if back == 0 { limit.to_string() } else { format!("from {limit} to {}", limit + back) },
            ours,
            ours >= limit && ours <= limit + back,
        );
        lab.check_eq(
            format!("{name}: let through when each tells its own"),
            2 * limit,
            naive.let_through,
        );
        lab.check_eq(
            format!("{name}: let through by the one that is behind, two windows later"),
            0,
            naive.after_half_an_hour,
        );
    }
    let columns = [
        "algorithm",
        "Redis tells the time",
        "each its own",
        "two windows later, of the one behind",
    ];
    lab.table(format!("Let through, limit {limit}"), &columns, rows);
    Ok(())
}

/// Units that come back in this time, at the rate of a bucket. In a window all come back, with any algorithm.
fn flowed_back(limit: u64, time: Duration) -> u64 {
    let back = u128::from(limit) * time.as_micros() / WINDOW.as_micros();
    u64::try_from(back).unwrap_or(u64::MAX)
}

struct Naive {
    let_through: u64,
    after_half_an_hour: u64,
}

/// First the process that is behind sends all it can, then the one that is ahead; then the first comes back when its
/// quota should long be whole.
async fn with_own_time(
    redis: &mut MultiplexedConnection,
    algorithm: Algorithm,
    key: &str,
    limit: u64,
    ahead: Micros,
) -> anyhow::Result<Naive> {
    let naive = OwnTime::new(algorithm)?;
    let window = u64::try_from(WINDOW.as_micros())?;
    let mut passed = [0; 3];
    for (now, passed) in [NOW, NOW + ahead, NOW + 2 * window].into_iter().zip(&mut passed) {
        for _ in 0..2 * limit {
            *passed += u64::from(naive.decide(redis, key, (limit, window), now).await?);
        }
    }
    Ok(Naive { let_through: passed[0] + passed[1], after_half_an_hour: passed[2] })
}
