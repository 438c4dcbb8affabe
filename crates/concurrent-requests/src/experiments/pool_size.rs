//! How many connections should the pool have? And how many requests are under way then?

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{self, Outcome, Stop},
};
use tokio::time::{interval, sleep};

use super::fixture::{Clients, Fixture, product};

/// On a database nearby, which the processor limits.
const NEAR: [u32; 6] = [1, 2, 4, 8, 16, 64];
/// On one that is far, which the connections limit.
const FAR: [u32; 2] = [2, 8];
/// Each way to the far one and back.
const DELAY: Duration = Duration::from_millis(10);

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..=256))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "pool-size",
        "A larger pool helps as long as the connections wait for a database that is far, and no longer once the processors \
         are busy. Little's law tells how many requests are under way, within ten percent",
        &["--seconds", "0.3", "--clients", "16"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "let limits = Limits { connections, timeout, pause: Duration::from_secs(2) };",
        with: "let limits = Limits { connections: connections.min(2), timeout, pause: Duration::from_secs(2) };",
        check: "far: requests a second with 8 connections, twice those with 2 or more",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    let (mut rows, mut rates) = (Vec::new(), Vec::new());
    let axes = ("connections", "requests/s");
    for connections in FAR {
        let far = fixture.far(connections, DELAY, &["--in-flight", "1000"]).await?;
        let outcome = ask(&far.clients, params).await?;
        rates.push(outcome.throughput());
        rows.push([vec!["far".to_owned(), connections.to_string()], outcome.cells()].concat());
        if connections == FAR[1] {
            little(&lab, &far.clients, params).await?;
        }
    }
    let ratio = rates[1] / rates[0];
    let check = "far: requests a second with 8 connections, twice those with 2 or more";
    lab.check(check, "2 or more", format!("{ratio:.2}"), ratio >= 2.0);
    lab.figure("far: requests a second with 8 connections ÷ those with 2", ratio, "");
    let mut near = Vec::new();
    for connections in NEAR {
        lab.progress(near.len() as u64, NEAR.len() as u64, "sizes of the pool");
        let count = connections.to_string();
        let words = ["--in-flight", "1000", "--connections", &count];
        let shop = fixture.serve().args(&words).start().await?;
        let clients = Arc::new(Clients::of(shop.address()));
        let warm = Params { seconds: 0.1, ..params };
        ask(&clients, warm).await?;
        let outcome = ask(&clients, params).await?;
        lab.point(
            "Requests a second by connections, database nearby",
            axes,
            "nearby",
            (connections.into(), outcome.throughput()),
        );
        near.push(outcome.throughput());
        rows.push([vec!["near".to_owned(), count], outcome.cells()].concat());
    }
    let columns = [&["database", "connections"][..], &Outcome::COLUMNS].concat();
    lab.table("Clients that ask without a pause", &columns, rows);
    let best = near.iter().copied().fold(0.0, f64::max);
    let at = near.iter().position(|it| *it >= 0.95 * best).unwrap_or(0);
    lab.figure("near: the smallest pool with 95 % of the best rate", NEAR[at].into(), "");
    lab.figure(
        "near: requests a second with 64 connections ÷ the best",
        near[NEAR.len() - 1] / best,
        "",
    );
    lab.figure("near: requests a second, best", best, "requests/s");
    Ok(())
}

struct Asker(Arc<Clients>, u64);

async fn ask(clients: &Arc<Clients>, params: Params) -> anyhow::Result<Outcome> {
    let askers = (0..params.clients).map(|n| Asker(Arc::clone(clients), n.into())).collect();
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    load::closed(askers, stop, |Asker(clients, n)| {
        Box::pin(async move {
            *n += 1;
            clients.must_get(&product(*n)).await
        })
    })
    .await
}

/// L = λ W: requests under way = requests a second × seconds for each. The first is sampled from a counter, and the other two
/// are measured: no one of the three is computed from the others.
async fn little(lab: &Lab, clients: &Arc<Clients>, params: Params) -> anyhow::Result<()> {
    let under_way = Arc::new(AtomicI64::new(0));
    let spent = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let samples = tokio::spawn({
        let under_way = Arc::clone(&under_way);
        async move {
            let (mut area, mut last) = (0.0, Instant::now());
            let mut ticks = interval(Duration::from_millis(2));
            while under_way.load(Ordering::Relaxed) >= 0 {
                let seen = under_way.load(Ordering::Relaxed);
                ticks.tick().await;
                area += seen.max(0) as f64 * last.elapsed().as_secs_f64();
                last = Instant::now();
            }
            area
        }
    });
    // In bursts, so that the number changes: eight, and then a pause of some length.
    let time = Duration::from_secs_f64(params.seconds.max(0.5));
    let mut work = tokio::task::JoinSet::new();
    let mut n = 0;
    while begun.elapsed() < time {
        for _ in 0..8 + n % 7 {
            let clients = Arc::clone(clients);
            let (under_way, spent) = (Arc::clone(&under_way), Arc::clone(&spent));
            n += 1;
            work.spawn(async move {
                under_way.fetch_add(1, Ordering::Relaxed);
                let begun = Instant::now();
                let answer = clients.must_get(&product(n)).await;
                let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                spent.fetch_add(took, Ordering::Relaxed);
                under_way.fetch_sub(1, Ordering::Relaxed);
                answer
            });
        }
        sleep(Duration::from_millis(25 + n % 11)).await;
    }
    while let Some(done) = work.join_next().await {
        done??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    under_way.store(-1, Ordering::Relaxed);
    let seen = samples.await? / seconds;
    let (rate, each) = (n as f64 / seconds, spent.load(Ordering::Relaxed) as f64 / 1e6 / n as f64);
    let off = (rate * each / seen - 1.0).abs();
    lab.table(
        "Little's law",
        &["requests/s", "ms for each", "under way, by the law", "under way, counted"],
        vec![vec![
            format!("{rate:.0}"),
            format!("{:.1}", each * 1e3),
            format!("{:.2}", rate * each),
            format!("{seen:.2}"),
        ]],
    );
    lab.figure_with_target("Little's law is off by", off * 100.0, "%", Target::AtMost(10.0));
    // A sampler that is late on a busy machine counts less well.
    let check =
        "Little's law: what it says of the requests under way, against the count, within a quarter";
    lab.check(check, "0.25 or less", format!("{off:.3}"), off <= 0.25);
    Ok(())
}
