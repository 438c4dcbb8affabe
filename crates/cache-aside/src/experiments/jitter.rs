//! A hundred thousand keys are filled at once. When do they expire, and what does the database see?

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage, Target};
use redis::Pipeline;
use tokio::task::JoinSet;

use super::fixture::{self, Fixture};
use crate::{
    service::{Service, Tuning},
    user::UserId,
    value::Source,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Keys that are filled at once
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    keys: u32,
    /// How much of the hour a random part may take off
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    jitter: f64,
    /// Hot users that are really read until they expire
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    hot: u32,
    /// Seconds that the hot users live; a random part takes up to a half off
    #[arg(long, default_value_t = 4.0, value_parser = lab::experiment::seconds)]
    ttl: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "jitter",
        "A hundred thousand keys filled at once: with one time to live they expire as fast as they were \
         filled and the database sees a spike; with jitter they are spread over the jitter",
        &["--keys", "3000", "--hot", "300", "--ttl", "1.5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/ttl.rs",
        replace: "let part = 1.0 - self.jitter * rand::random::<f64>();",
        with: "let part = 1.0;",
        check: "with jitter: seconds between the first expiry and the last",
    })
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.01..=0.9).contains(&share) { Ok(share) } else { Err("must be 0.01 to 0.9".to_owned()) }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (same, same_took) = expiries(&params, &lab, 0.0).await?;
    let (spread, spread_took) = expiries(&params, &lab, params.jitter).await?;
    let over = 3_600.0 * params.jitter;
    let keys = f64::from(params.keys);
    // Hot keys that expire in the same second are reloaded in the same second.
    lab.figure("one time to live: reloads in the worst second of the hour", same.worst, "");
    lab.figure("with jitter: reloads in the worst second of the hour", spread.worst, "");
    let filled = keys / same_took.as_secs_f64();
    lab.figure("users filled a second, a hundred at a time", filled, "/s");
    lab.check(
        "one time to live: seconds between the first expiry and the last",
        format!("at most the {:.1} s that the filling took, and one", same_took.as_secs_f64()),
        format!("{:.1}", same.between),
        same.between <= same_took.as_secs_f64() + 1.0,
    );
    let longest = over + spread_took.as_secs_f64();
    lab.check(
        "with jitter: seconds between the first expiry and the last",
        format!("from {:.0} to {longest:.0}", over * 0.9),
        format!("{:.1}", spread.between),
        (over * 0.9..=longest).contains(&spread.between),
    );
    // A second's share is Poisson's, so its deviation is the root of the mean; six of them practically never happen.
    let mean = keys / over;
    let most = mean + 6.0 * mean.sqrt() + 1.0;
    lab.check(
        format!("with jitter: keys that expire in the worst second, of {keys}"),
        format!("at most {most:.0}, when {mean:.1} are a fair share"),
        spread.worst,
        spread.worst <= most,
    );
    really_read(&params, &lab).await
}

struct Expiries {
    /// How many keys expire in the second in which most do.
    worst: f64,
    /// Seconds from the first expiry to the last.
    between: f64,
}

/// Fills all keys, and asks Redis when each expires.
async fn expiries(params: &Params, lab: &Lab, jitter: f64) -> anyhow::Result<(Expiries, Duration)> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(params.keys).await?;
    let app = fixture.app(&Tuning { jitter, ..fixture.no_timeouts() }).await?;
    let begun = Instant::now();
    fill(&app, params.keys, lab).await?;
    let took = begun.elapsed();
    let mut redis = fixture.redis().await?;
    let keys = fixture.keys_of_users().await?;
    let mut times = Vec::new();
    for first in (1..=params.keys).step_by(1_000) {
        let mut ask = Pipeline::new();
        for n in first..(first + 1_000).min(params.keys + 1) {
            // The time on Redis' clock, and not the time that is left, which depends on when the answer comes.
            ask.cmd("PEXPIRETIME").arg(format!("{keys}{n}"));
        }
        let ends: Vec<i64> = ask.query_async(&mut redis).await?;
        ensure!(ends.iter().all(|end| *end > 0), "a key was not filled");
        times.extend(ends.into_iter().map(|end| Duration::from_millis(end.unsigned_abs())));
    }
    app.stop().await;
    let first = times.iter().copied().min().context("no keys")?;
    let last = times.iter().copied().max().context("no keys")?;
    let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
    for time in times {
        *seconds.entry(time.saturating_sub(first).as_secs()).or_default() += 1;
    }
    let worst = seconds.into_values().max().unwrap_or(0).into();
    Ok((Expiries { worst, between: last.saturating_sub(first).as_secs_f64() }, took))
}

/// Reads every user once, a hundred at a time.
async fn fill(service: &Arc<Service>, keys: u32, lab: &Lab) -> anyhow::Result<()> {
    let ids = (1..=keys).map(fixture::id).collect::<anyhow::Result<Vec<_>>>()?;
    for (n, ids) in ids.chunks(1_000).enumerate() {
        try_join_all(ids.chunks(100).map(|ids| service.get_many(ids))).await?;
        lab.progress(n as u64 * 1_000, keys.into(), "keys filled");
    }
    Ok(())
}

const TITLE: &str = "Queries of the database for hot users that were filled at once";
const AXES: (&str, &str) = ("seconds since they were filled", "queries a second");
/// Milliseconds in one point of the chart.
const BIN: u128 = 100;

/// Two services side by side, whose hot users are read all the time.
async fn really_read(params: &Params, lab: &Lab) -> anyhow::Result<()> {
    let (same, spread) = tokio::try_join!(
        queries(params, lab, "one time to live", 0.0),
        queries(params, lab, "with jitter", 0.5),
    )?;
    for (name, seen) in [("one time to live", &same), ("with jitter", &spread)] {
        for (bin, count) in seen.bins.iter().enumerate() {
            lab.point(TITLE, AXES, name, (bin as f64 / 10.0, f64::from(*count) * 10.0));
        }
    }
    let worst = |seen: &ReallyRead| f64::from(seen.bins.iter().copied().max().unwrap_or(0));
    lab.figure_with_target(
        "really read: worst tenth of a second with jitter ÷ that with one time to live",
        worst(&spread) / worst(&same),
        "",
        Target::AtMost(0.6),
    );
    for (name, seen, life) in
        [("one time to live", &same, params.ttl), ("with jitter", &spread, params.ttl / 2.0)]
    {
        // The shortest life began when the filling did.
        let first = (life - seen.filling.as_secs_f64()).max(0.0);
        let bins = seen.bins.iter().zip(1..);
        let early = bins.filter(|(_, end)| f64::from(*end) / 10.0 < first).map(|(n, _)| n).sum();
        lab.check_eq(
            format!("really read, {name}: queries in the {first:.1} s before the first expiry"),
            0_u32,
            early,
        );
        let all: u32 = seen.bins.iter().sum();
        lab.check(format!("really read, {name}: queries after it"), "1 or more", all, all > early);
    }
    Ok(())
}

struct ReallyRead {
    /// The queries of each tenth of a second after the filling.
    bins: Vec<u32>,
    filling: Duration,
}

async fn queries(
    params: &Params,
    lab: &Lab,
    name: &str,
    jitter: f64,
) -> anyhow::Result<ReallyRead> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(params.hot).await?;
    let ttl = Duration::from_secs_f64(params.ttl);
    let app = fixture.app(&Tuning { ttl, jitter, beta: 0.0, ..fixture.no_timeouts() }).await?;
    let filled_from = Instant::now();
    fill(&app, params.hot, lab).await?;
    let (begun, filling) = (Instant::now(), filled_from.elapsed());
    let ids = (1..=params.hot).map(fixture::id).collect::<anyhow::Result<Vec<_>>>()?;
    let ids: Arc<[UserId]> = ids.into();
    // The last expiry, and time enough to read them all once more.
    let end = begun + Duration::from_secs_f64(params.ttl * 1.25);
    let mut readers = JoinSet::new();
    for reader in 0..8 {
        let (service, ids) = (Arc::clone(&app), Arc::clone(&ids));
        readers.spawn(async move {
            let mut bins = Vec::new();
            for n in (reader * ids.len() / 8).. {
                if Instant::now() >= end {
                    break;
                }
                let (_, source) = service.get(ids[n % ids.len()]).await?;
                if matches!(source, Source::Miss { .. }) {
                    let bin = usize::try_from(begun.elapsed().as_millis() / BIN)?;
                    bins.resize(bins.len().max(bin + 1), 0);
                    bins[bin] += 1;
                }
            }
            anyhow::Ok(bins)
        });
    }
    lab.progress(0, 0, format!("hot users are read until they expire, {name}"));
    let mut all: Vec<u32> = Vec::new();
    for bins in readers.join_all().await {
        let bins: Vec<u32> = bins?;
        all.resize(all.len().max(bins.len()), 0);
        for (all, bin) in all.iter_mut().zip(bins) {
            *all += bin;
        }
    }
    app.stop().await;
    Ok(ReallyRead { bins: all, filling })
}
