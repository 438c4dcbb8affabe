//! How many connections should the pool have? And how many requests are under way then?

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::future::try_join_all;
use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{self, Outcome, Stop},
};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::fixture::{Clients, Far, Fixture, product};

/// On a database nearby, which the processor limits.
const NEAR: [u32; 6] = [1, 2, 4, 8, 16, 64];
/// On one that is far, which the connections limit.
const FAR: [u32; 2] = [2, 8];
/// Each way to the far one and back.
const DELAY: Duration = Duration::from_millis(15);
/// Clients that wait all the time, for Little's law, and how many requests each of them sends.
const UNDER_WAY: u64 = 16;
const REQUESTS: u64 = 40;
/// How often the shop is asked how many are at work.
const EACH: Duration = Duration::from_millis(5);

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.7, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..=256))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "pool-size",
        "When the database is far, the pool's size sets the capacity: eight connections serve far more than two. Little's law \
         tells how many requests are at work, within a quarter",
        &["--seconds", "0.3", "--clients", "16"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "let limits = Limits { connections, timeout, pause: Duration::from_secs(2) };",
        with: "let limits = Limits { connections: connections.min(2), timeout, pause: Duration::from_secs(2) };",
        check: "far: requests a second with 8 connections ÷ those with 2, 1.5 or more",
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
            little(&lab, &far).await?;
        }
    }
    let ratio = rates[1] / rates[0];
    let check = "far: requests a second with 8 connections ÷ those with 2, 1.5 or more";
    lab.check(check, "1.5 or more", format!("{ratio:.2}"), ratio >= 1.5);
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

/// L = λ W: requests at work = requests a second × seconds for each. The shop tells the first, and the clients measure the
/// other two. Each client sends the same number of requests, so a busy machine changes how long all of it takes, and not
/// whether the law holds.
async fn little(lab: &Lab, far: &Far) -> anyhow::Result<()> {
    let ask = |client: u64| {
        let clients = Arc::clone(&far.clients);
        async move {
            let mut spent = Duration::ZERO;
            for n in 0..REQUESTS {
                let begun = Instant::now();
                clients.must_get(&product(client * REQUESTS + n)).await?;
                spent += begun.elapsed();
            }
            anyhow::Ok(spent)
        }
    };
    let begun = Instant::now();
    let mut samples = Vec::new();
    let spent = tokio::select! {
        spent = try_join_all((0..UNDER_WAY).map(ask)) => spent?,
        stopped = sample(far.shop.url(), &mut samples) => match stopped? {},
    };
    let seconds = begun.elapsed().as_secs_f64();
    let count = (UNDER_WAY * REQUESTS) as f64;
    let rate = count / seconds;
    let each = spent.iter().sum::<Duration>().as_secs_f64() / count;
    let at_work = samples.iter().sum::<f64>() / samples.len() as f64;
    let off = (rate * each / at_work - 1.0).abs();
    lab.table(
        "Little's law: 8 connections to the far database",
        &["requests/s", "ms for each", "at work, by the law", "at work, as the shop says"],
        vec![vec![
            format!("{rate:.0}"),
            format!("{:.1}", each * 1e3),
            format!("{:.2}", rate * each),
            format!("{at_work:.2}"),
        ]],
    );
    let name = "Little's law is off by";
    lab.figure_with_target(name, off * 100.0, "%", Target::AtMost(10.0));
    let check = "Little's law: requests at work by the law ÷ as the shop says, off by";
    lab.check(check, "25 % or less", format!("{:.1} %", off * 100.0), off <= 0.25);
    Ok(())
}

/// How many requests the shop says are at work, again and again, until this is dropped.
async fn sample(url: &str, samples: &mut Vec<f64>) -> anyhow::Result<Infallible> {
    let client = reqwest::Client::new();
    let mut ticks = interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pressure: Value = client.get(format!("{url}/pressure")).send().await?.json().await?;
        samples.push(pressure["in_flight"].as_f64().context("no number is at work")?);
    }
}
