//! Does it matter that look and take are one step?

use std::sync::Arc;

use lab::{Experiment, Lab, Sabotage, keys::Keys};
use tokio::{sync::Barrier, task::JoinSet};

use super::{fixture::PATIENCE, naive};
use crate::{
    algorithm::{Algorithm, Limits},
    client::Key,
    quota::{Policy, Quota},
    shared::Shared,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that share one quota, on a connection each
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(2..=256))]
    clients: u64,
    /// Quotas fought for, one after another, with each limiter
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    rounds: u64,
    /// Requests that each quota allows
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "naive-redis",
        "GET and then SET lets more than the limit through when clients come at once; one script never does",
        &["--clients", "16", "--rounds", "6"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/window.rs",
        replace: "c.used + c.cost <= c.limit",
        with: "c.used + c.cost < c.limit",
        check: "fixed-window: quotas of which not exactly all was taken",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let keys = lab.keys().await?;
    let limit = u64::from(params.limit);
    let (mut rows, mut over) = (Vec::new(), 0);
    let mut most = 0;
    for round in 0..params.rounds {
        lab.progress(round, params.rounds, "quotas fought for with GET and SET");
        let passed = naively(&params, &keys, round).await?;
        most = most.max(passed);
        over += u64::from(passed > limit);
    }
    rows.push(vec!["GET, SET".to_owned(), most.to_string(), over.to_string()]);
    lab.figure("the most that GET and SET let through", most as f64, &format!("of {limit}"));
    lab.check(
        "quotas overrun with GET and SET",
        format!("1 or more of {}", params.rounds),
        over,
        over > 0,
    );
    for algorithm in Algorithm::ALL {
        let (mut most, mut wrong) = (0, 0);
        for round in 0..params.rounds {
            lab.progress(
                round,
                params.rounds,
                format!("quotas fought for with {}", algorithm.name()),
            );
            let passed = with_script(&params, &keys, algorithm, round).await?;
            most = most.max(passed);
            wrong += u64::from(passed != limit);
        }
        rows.push(vec![algorithm.name().to_owned(), most.to_string(), wrong.to_string()]);
        let check = format!("{}: quotas of which not exactly all was taken", algorithm.name());
        lab.check_eq(check, 0, wrong);
    }
    let columns = ["limiter", &format!("most let through, of {limit}"), "quotas missed"];
    lab.table("Many clients at once", &columns, rows);
    Ok(())
}

/// How many pass when each client asks for twice its share of the limit.
async fn naively(params: &Params, keys: &Keys, round: u64) -> anyhow::Result<u64> {
    let limit = u64::from(params.limit);
    let start = Arc::new(Barrier::new(usize::try_from(params.clients)?));
    let mut clients = JoinSet::new();
    for _ in 0..params.clients {
        let mut redis = keys.connection().await?;
        let (key, start) = (format!("{}naive:{round}", keys.prefix()), Arc::clone(&start));
        let tries = 2 * limit.div_ceil(params.clients);
        clients.spawn(async move {
            start.wait().await;
            let mut passed = 0;
            for _ in 0..tries {
                passed += u64::from(naive::get_then_set(&mut redis, &key, limit).await?);
            }
            anyhow::Ok(passed)
        });
    }
    let passed = clients.join_all().await.into_iter();
    passed.sum()
}

async fn with_script(
    params: &Params,
    keys: &Keys,
    algorithm: Algorithm,
    round: u64,
) -> anyhow::Result<u64> {
    // In a year: even of 10,000 units none flows back for 50 minutes, however slow this machine is.
    let quota = Quota::new(params.limit, std::time::Duration::from_hours(366 * 24))?;
    let limits = Arc::new(Limits::new(algorithm, vec![Policy::new("api", quota)?])?);
    let start = Arc::new(Barrier::new(usize::try_from(params.clients)?));
    let mut clients = JoinSet::new();
    for _ in 0..params.clients {
        let shared = Shared::new(keys.url(), keys.prefix(), PATIENCE)?;
        shared.ping().await?;
        let (limits, start) = (Arc::clone(&limits), Arc::clone(&start));
        let tries = 2 * u64::from(params.limit).div_ceil(params.clients);
        clients.spawn(async move {
            start.wait().await;
            let mut passed = 0;
            for _ in 0..tries {
                let key = Key::of("round", &round.to_be_bytes());
                passed += u64::from(shared.decide(&limits, key, 1, 0).await?.decision.allowed);
            }
            anyhow::Ok(passed)
        });
    }
    let passed = clients.join_all().await.into_iter();
    passed.sum()
}
