//! What does an orchestrator do when the backend is away? It does what the probes tell it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use lab::{
    Experiment, Lab, Need, Sabotage, Service, child::Child, experiment::seconds,
    harness::eventually, stack::own::OwnServer,
};
use tokio::{task::JoinSet, time::timeout};

use super::fixture::{get, ms};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Replicas
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub replicas: u32,
    /// How long the backend is away, in seconds
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub outage: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "health",
        "Liveness that asks the backend restarts every replica when the backend is away. Liveness that asks nobody restarts \
         none; readiness takes all out of rotation, and brings them back",
        &["--outage", "1.0"],
        run,
    )
    .needs(&[Need::Own(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: r#".route("/healthz", get(alive))"#,
        with: r#".route("/healthz", get(ready))"#,
        check: "restarts with our liveness",
    })
}

/// A replica, and what the orchestrator knows of it.
#[derive(Default)]
struct Known {
    ready: AtomicBool,
    restarts: AtomicU32,
    stop: AtomicBool,
}

/// What was seen.
struct Seen {
    restarts: u32,
    ready_during: usize,
    alive_during: usize,
    ready_after: usize,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut backend = lab.own_server(Service::Redis).await?;
    let mut rows = Vec::new();
    let replicas = params.replicas as usize;
    for (n, liveness) in ["/healthz", "/readyz"].into_iter().enumerate() {
        lab.progress(n as u64, 2, format_args!("liveness asks {liveness}"));
        let seen = outage(&lab, &mut backend, liveness, params).await?;
        rows.push(vec![
            liveness.to_owned(),
            seen.restarts.to_string(),
            seen.ready_during.to_string(),
            seen.alive_during.to_string(),
            seen.ready_after.to_string(),
        ]);
        if n == 0 {
            lab.check_eq("restarts with our liveness", 0, seen.restarts);
            lab.check_eq("replicas in rotation while the backend is away", 0, seen.ready_during);
            lab.check_eq(
                "replicas that still answer what needs no backend",
                replicas,
                seen.alive_during,
            );
            lab.check_eq("replicas in rotation when it is back", replicas, seen.ready_after);
        } else {
            lab.check(
                "restarts with liveness that asks the backend",
                format!("at least {replicas}"),
                seen.restarts,
                seen.restarts as usize >= replicas,
            );
            lab.figure("restarts with liveness that asks the backend", seen.restarts.into(), "");
        }
    }
    lab.table(
        "The backend is away, and comes back",
        &[
            "liveness asks",
            "restarts",
            "in rotation meanwhile",
            "answer meanwhile",
            "in rotation after",
        ],
        rows,
    );
    Ok(())
}

async fn outage(
    lab: &Lab,
    backend: &mut OwnServer,
    liveness: &'static str,
    params: Params,
) -> anyhow::Result<Seen> {
    let address = format!("127.0.0.1:{}", backend.port()?);
    let (mut orchestrator, mut fleet) = (JoinSet::new(), Vec::new());
    for _ in 0..params.replicas {
        let child = lab.serve().env("BACKEND", &address).start().await?;
        let (host, known) = (child.address().to_owned(), Arc::new(Known::default()));
        fleet.push((host, Arc::clone(&known)));
        orchestrator.spawn(watch(child, known, liveness));
    }
    let ready = || fleet.iter().filter(|(_, it)| it.ready.load(Ordering::Relaxed)).count();
    let all = async || Ok((ready() == fleet.len()).then_some(()));
    eventually("all replicas are in rotation", all).await?;
    backend.kill().await?;
    tokio::time::sleep(std::time::Duration::from_secs_f64(params.outage)).await;
    let ready_during = ready();
    let mut alive_during = 0;
    for (host, _) in &fleet {
        alive_during += usize::from(get(host, "/").await.ok() == Some(200));
    }
    backend.restart().await?;
    // A version that never comes back is a finding, and no error.
    let _ = eventually("all replicas are in rotation again", all).await;
    let ready_after = ready();
    let restarts = fleet.iter().map(|(_, it)| it.restarts.load(Ordering::Relaxed)).sum();
    for (_, known) in &fleet {
        known.stop.store(true, Ordering::Relaxed);
    }
    while let Some(ended) = orchestrator.join_next().await {
        ended??;
    }
    Ok(Seen { restarts, ready_during, alive_during, ready_after })
}

/// What a kubelet does for one replica: it asks both probes, in turn, and believes three failures of liveness.
async fn watch(mut child: Child, known: Arc<Known>, liveness: &str) -> anyhow::Result<()> {
    let mut failures = 0;
    while !known.stop.load(Ordering::Relaxed) {
        let host = child.address().to_owned();
        let ask = async |path: &str| {
            let status = timeout(ms(1_000), get(&host, path)).await;
            matches!(status, Ok(Ok(200)))
        };
        known.ready.store(ask("/readyz").await, Ordering::Relaxed);
        failures = if ask(liveness).await { 0 } else { failures + 1 };
        if failures == 3 {
            child.kill().await?;
            child.restart().await?;
            known.restarts.fetch_add(1, Ordering::Relaxed);
            failures = 0;
        }
        tokio::time::sleep(ms(50)).await;
    }
    Ok(())
}
