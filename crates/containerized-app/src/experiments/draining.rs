//! How does a rolling restart lose no request? The experiment plays the orchestrator and its balancer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage, child::Child, load::http::Connection};
use tokio::{sync::RwLock, task::JoinSet, time::sleep};

use super::fixture::{job, ms, until_ready};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Restarts in the right order; each wrong order gets one for each second replica, and again while it loses nothing
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub restarts: u64,
    /// Replicas; half of them are restarted at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=20))]
    pub replicas: u64,
    /// Clients, each of which sends one job after another
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=500))]
    pub clients: u64,
    /// How long a job takes, in milliseconds
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..=2_000))]
    pub job_ms: u64,
    /// How late the balancer hears that a replica leaves, in milliseconds
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=2_000))]
    pub late_ms: u64,
    /// How long the orchestrator (preStop), or the program itself, waits before it stops to listen, in milliseconds
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(10..=5_000))]
    pub wait_ms: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "draining",
        "Fifty rolling restarts under load lose no request with readiness, a wait before SIGTERM, and draining. Without any \
         one of them some are lost. A program that itself waits after SIGTERM needs no preStop",
        &["--restarts", "2", "--replicas", "4", "--clients", "40"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/lifecycle.rs",
        replace: "        sleep(self.linger).await;\n",
        with: "        drop(sleep(self.linger));\n",
        check: "requests lost if the program itself waits after SIGTERM",
    })
}

#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that can be left out")]
struct Way {
    name: &'static str,
    /// A new replica gets requests only when it says that it is ready.
    readiness: bool,
    /// The orchestrator waits before SIGTERM.
    pre_stop: bool,
    /// The program waits after SIGTERM.
    lingers: bool,
    /// It may answer what is in flight; otherwise it is killed.
    drains: bool,
}

const RIGHT: Way =
    Way { name: "all three", readiness: true, pre_stop: true, lingers: false, drains: true };

/// A wrong order may go well by chance, above all on a busy machine. So it is tried again before we say that nothing is lost.
const TRIES: usize = 10;

/// Where requests may go.
#[derive(Clone, Default)]
struct Endpoints(Arc<RwLock<Vec<String>>>);

impl Endpoints {
    async fn add(&self, host: &str) {
        self.0.write().await.push(host.to_owned());
    }

    async fn remove(&self, host: &str) {
        self.0.write().await.retain(|it| it != host);
    }

    /// Connects to one of them, in turn. Nobody is taken out meanwhile.
    async fn connect(&self, turn: usize) -> anyhow::Result<Connection> {
        let hosts = self.0.read().await;
        let host = hosts.get(turn % hosts.len().max(1)).context("there is no endpoint")?;
        Connection::open(host).await
    }
}

#[derive(Default)]
struct Counts {
    served: AtomicU64,
    lost: AtomicU64,
    turn: AtomicUsize,
    stop: AtomicBool,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let ways = [
        RIGHT,
        Way { name: "no preStop, but it lingers", pre_stop: false, lingers: true, ..RIGHT },
        Way { name: "no readiness", readiness: false, ..RIGHT },
        Way { name: "no wait before SIGTERM", pre_stop: false, ..RIGHT },
        Way { name: "no draining", drains: false, ..RIGHT },
    ];
    let mut rows = Vec::new();
    for (n, way) in ways.iter().enumerate() {
        let few = params.replicas / 2;
        let at_once = if n == 0 { params.restarts } else { few };
        let tries = if n < 2 { 1 } else { TRIES };
        let begun = Instant::now();
        let (mut restarts, mut served, mut lost) = (0, 0, 0);
        for _ in 0..tries {
            let (more_served, more_lost) = restart_all(&lab, *way, at_once, params).await?;
            restarts += at_once;
            served += more_served;
            lost += more_lost;
            if lost > 0 {
                break;
            }
        }
        rows.push(vec![
            way.name.to_owned(),
            restarts.to_string(),
            served.to_string(),
            lost.to_string(),
            format!("{:.1}", begun.elapsed().as_secs_f64()),
        ]);
        match n {
            0 => {
                lab.check_eq("requests lost with all three", 0, lost);
                lab.figure("requests during the restarts in the right order", served as f64, "");
            }
            1 => lab.check_eq("requests lost if the program itself waits after SIGTERM", 0, lost),
            _ => {
                lab.check(
                    format!("requests lost with {}", way.name),
                    "at least 1",
                    lost,
                    lost >= 1,
                );
            }
        }
    }
    lab.table("Rolling restarts under load", &["", "restarts", "served", "lost", "seconds"], rows);
    Ok(())
}

async fn restart_all(
    lab: &Lab,
    way: Way,
    restarts: u64,
    params: Params,
) -> anyhow::Result<(u64, u64)> {
    let (endpoints, counts) = (Endpoints::default(), Arc::new(Counts::default()));
    let started = try_join_all((0..params.replicas).map(|_| start(lab, way, params)));
    let mut fleet = started.await?;
    for replica in &fleet {
        until_ready(replica.address()).await?;
        endpoints.add(replica.address()).await;
    }
    let mut clients = JoinSet::new();
    for n in 0..params.clients {
        let (endpoints, counts) = (endpoints.clone(), Arc::clone(&counts));
        clients.spawn(async move {
            // Spread over the time of a job, so that there is always somebody who sends one.
            sleep(ms(params.job_ms * n / params.clients)).await;
            ask(endpoints, counts, params).await;
        });
    }
    let mut done = 0;
    while done < restarts {
        lab.progress(done, restarts, way.name);
        let many = (params.replicas / 2).min(restarts - done);
        let old: Vec<_> = fleet.drain(..usize::try_from(many)?).collect();
        let replaced = old.into_iter().map(|old| replace(lab, way, params, &endpoints, old));
        fleet.extend(try_join_all(replaced).await?);
        done += many;
    }
    counts.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    Ok((counts.served.load(Ordering::Relaxed), counts.lost.load(Ordering::Relaxed)))
}

async fn start(lab: &Lab, way: Way, params: Params) -> anyhow::Result<Child> {
    let linger = if way.lingers { params.wait_ms } else { 0 };
    // It warms up for as long as a job takes, so that each client comes by meanwhile.
    let (warm_up, linger) = (params.job_ms.to_string(), linger.to_string());
    lab.serve().args(&["--warm-up-ms", &warm_up, "--linger-ms", &linger]).start().await
}

/// What an orchestrator does for one replica.
async fn replace(
    lab: &Lab,
    way: Way,
    params: Params,
    endpoints: &Endpoints,
    mut old: Child,
) -> anyhow::Result<Child> {
    let new = start(lab, way, params).await?;
    if way.readiness {
        until_ready(new.address()).await?;
    }
    endpoints.add(new.address()).await;
    // Two things happen at the same time, and nobody waits for the other: the balancer hears of it, and the replica ends.
    let leaving = old.address().to_owned();
    let leaves = async {
        sleep(ms(params.late_ms)).await;
        endpoints.remove(&leaving).await;
        anyhow::Ok(())
    };
    let ends = async {
        if way.pre_stop {
            sleep(ms(params.wait_ms)).await;
        }
        if way.drains { old.stop().await.map(drop) } else { old.kill().await }
    };
    tokio::try_join!(leaves, ends)?;
    Ok(new)
}

/// A client: one job after another.
async fn ask(endpoints: Endpoints, counts: Arc<Counts>, params: Params) {
    while !counts.stop.load(Ordering::Relaxed) {
        let turn = counts.turn.fetch_add(1, Ordering::Relaxed);
        let answered = async {
            let mut connection = endpoints.connect(turn).await?;
            let request = job(&connection, params.job_ms);
            connection.send(&request).await
        };
        if matches!(answered.await, Ok(200)) {
            counts.served.fetch_add(1, Ordering::Relaxed);
        } else {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            sleep(ms(20)).await;
        }
    }
}
