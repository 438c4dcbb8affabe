//! What is lost when the service is killed under load?

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};
use tokio::task::JoinSet;

use super::fixture::{Fixture, UNLIMITED, lost};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Times that the service is killed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Seconds of load before each kill
    #[arg(long, default_value_t = 2.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Clients that create links, and as many that click
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "crash",
        "SIGKILL under load: every link that was answered with 201 resolves after the restart; while the \
         database keeps up, only clicks of the last second are gone",
        &["--rounds", "2", "--seconds", "1.8", "--clients", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/clicks.rs",
        replace: "const EVERY: Duration = Duration::from_millis(500);",
        with: "const EVERY: Duration = Duration::from_secs(5);",
        check: "kills after which a click older than a second was missing",
    })
}

/// What the clients were promised.
#[derive(Default)]
struct Promises {
    /// The code of each link that was answered with 201, and its URL.
    links: HashMap<String, String>,
    /// When each click was answered with 302.
    clicks: Vec<Instant>,
}

type Shared = Arc<Mutex<Promises>>;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (mut child, client) = fixture.start(&UNLIMITED).await?;
    let (mut promised, mut lost_links) = (0, 0);
    let (mut all_due, mut early_losses, mut invented) = (0, 0, 0);
    let mut rows = Vec::new();
    for round in 0..params.rounds {
        lab.progress(round, params.rounds, "kills under load");
        let target = client.shorten(&format!("https://example.com/clicked/{round}")).await?;
        let promises = Shared::default();
        let load = load(&client, &target, &promises, params.clients.into(), round);
        tokio::time::sleep(Duration::from_secs_f64(params.seconds)).await;
        let killed = Instant::now();
        child.kill().await?;
        load.join_all().await;
        child.restart().await?;

        let promises =
            std::mem::take(&mut *promises.lock().unwrap_or_else(PoisonError::into_inner));
        let links: Vec<_> = promises.links.into_iter().collect();
        let lost = lost(&client, &links).await?;
        let kept = client.clicks(&target).await?;
        let answered = promises.clicks.iter().filter(|&&answered| answered <= killed).count();
        // Clicks that were answered a second or more before the kill have to be there.
        let due = killed.checked_sub(Duration::from_secs(1)).context("a short uptime")?;
        let due = promises.clicks.iter().filter(|&&answered| answered <= due).count();
        promised += links.len();
        lost_links += lost;
        all_due += due;
        early_losses += u64::from(kept < due as u64);
        // A click that was under way when the kill came may be counted although nobody saw its answer.
        invented += u64::from(kept > (promises.clicks.len() + usize::from(params.clients)) as u64);
        rows.push(vec![
            (round + 1).to_string(),
            links.len().to_string(),
            lost.to_string(),
            answered.to_string(),
            due.to_string(),
            kept.to_string(),
        ]);
    }
    lab.progress(params.rounds, params.rounds, "kills under load");
    let columns = ["kill", "links answered 201", "lost", "clicks answered", "due", "kept"];
    lab.table("Promised before each kill, and found after it", &columns, rows);
    lab.figure("links promised", promised as f64, "");
    lab.check("the load was real", "100 links or more", promised, promised >= 100);
    lab.check(
        "there were clicks older than a second to lose",
        "100 or more",
        all_due,
        all_due >= 100,
    );
    lab.check_eq("promised links that do not resolve after the restart", 0, lost_links);
    lab.check_eq("kills after which a click older than a second was missing", 0, early_losses);
    lab.check_eq("kills after which more clicks were counted than made", 0, invented);
    Ok(())
}

/// Half of the clients create, half click, each until the service is gone.
fn load(
    client: &Client,
    target: &str,
    promises: &Shared,
    clients: usize,
    round: u64,
) -> JoinSet<()> {
    let mut load = JoinSet::new();
    for worker in 0..clients {
        let (create, links) = (client.clone(), promises.clone());
        load.spawn(async move {
            for n in 0.. {
                let url = format!("https://example.com/{round}/{worker}/{n}");
                let Ok(code) = create.shorten(&url).await else { break };
                links.lock().unwrap_or_else(PoisonError::into_inner).links.insert(code, url);
            }
        });
        let (click, clicks, target) = (client.clone(), promises.clone(), target.to_owned());
        load.spawn(async move {
            while let Ok(redirect) = click.follow(&target).await {
                if redirect.status() == 302 {
                    let now = Instant::now();
                    clicks.lock().unwrap_or_else(PoisonError::into_inner).clicks.push(now);
                }
            }
        });
    }
    load
}
