//! What happens to the queues while RabbitMQ has too little memory?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    group::{RabbitMqGroup, ServerGroup},
    queues::Queues,
};
use tokio::time::{Instant, sleep};

use super::{
    fcm::{FakeFcm, Fate},
    fixture::{self, Fixture, Options},
};
use crate::cases::{PATIENCE, client::Client};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Pushes that wait in the queues when the alarm begins, far more than a worker fetches ahead
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(100..=2_000))]
    pushes: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "alarm",
        "Under RabbitMQ's memory alarm nothing new is accepted, and the queues drain: acknowledgements go over a \
         connection that never publishes",
        &["--pushes", "120"],
        run,
    )
    .needs(&[Need::Group(RabbitMqGroup::GROUP)])
    .sabotage(Sabotage {
        file: "src/broker.rs",
        replace: "tokio::join!(self.keep_connected(publishing), self.keep_connected(consuming));",
        with: "let same = async {
            let mut links = publishing.subscribe();
            while links.changed().await.is_ok() {
                consuming.send_replace(links.borrow_and_update().clone());
            }
        };
        tokio::join!(self.keep_connected(publishing), same);",
        check: "pushes that were sent while the alarm lasted",
    })
}

/// Limits of memory, as a part of what there is: everything is above the one, and nothing above the other.
const FULL: &str = "0";
const ENOUGH: &str = "0.4";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 3, "three nodes are starting");
    let group = lab.group::<RabbitMqGroup>().await?;
    let queues = Queues::fresh_on(&group.members[0].url()?, "notification-worker");
    tokio::try_join!(lab.server(Service::Postgres), lab.server(Service::Redis))?;
    let fixture = Fixture::on(queues, Options { shards: 2, backoff_ms: 100, attempts: 8 }).await?;
    // FCM is slow until the alarm begins, so that there is something left by then.
    let begins = Arc::new(AtomicBool::new(false));
    let has_begun = begins.clone();
    let fcm = FakeFcm::start(move |_| {
        let has_begun = has_begun.load(Ordering::Relaxed);
        Fate::slow(if has_begun { Duration::from_millis(20) } else { Duration::from_secs(5) })
    })
    .await?;
    // One process, which publishes and consumes.
    let process = fixture.serve().args(&["--concurrency", "4"]);
    let process = process.args(&["--fcm-url", &fcm.url(), "--fcm-credentials"]);
    let (_child, client) = fixture::start(process.arg(fcm.credentials.path())).await?;
    for n in 0..8 {
        client.add_device(&format!("user-{n}"), &format!("device-{n}")).await?;
    }
    // As many as are sent before the alarm on a busy machine come on top.
    let (client, posted, wanted) = (&client, AtomicUsize::new(0), usize::from(params.pushes));
    let posting = (0..8).map(async |user| {
        while posted.load(Ordering::Relaxed) < wanted + fcm.sent().len() {
            let n = posted.fetch_add(1, Ordering::Relaxed);
            client.push(&format!("push-{n}"), &format!("user-{user}")).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(posting).await?;
    let wanted = posted.into_inner();
    lab.progress(1, 3, "the alarm");
    let limit = async |limit| {
        let words = ["set_vm_memory_high_watermark", limit];
        group.rabbitmqctl(0, &words).await
    };
    limit(FULL).await?;
    let (before, begun) = (fcm.sent().len(), Instant::now());
    begins.store(true, Ordering::Relaxed);
    let refused = seconds_until(client, 503).await?;
    let drained = fcm.until("the queues are empty", PATIENCE, |sent| sent.len() >= wanted).await;
    let took = begun.elapsed();
    let sent = drained.map_or_else(|_| fcm.sent().len(), |sent| sent.len());
    let still = client.try_notify("still", "ann", "websocket").await?.status();
    lab.progress(2, 3, "the alarm ends");
    limit(ENOUGH).await?;
    let accepted = seconds_until(client, 202).await?;

    lab.figure("pushes that were left when the alarm began", (wanted - before) as f64, "");
    lab.figure("until the queues were empty", took.as_secs_f64(), "s");
    lab.figure("until the first call was refused", refused.unwrap_or(f64::INFINITY), "s");
    lab.figure("until a call was accepted again", accepted.unwrap_or(f64::INFINITY), "s");
    let left = wanted - before;
    lab.check("the queues were not empty", "50 or more", left, left >= 50);
    lab.check_eq("calls were refused when the alarm began", true, refused.is_some());
    lab.check_eq("and still when the queues were empty: the status", 503, still.as_u16());
    lab.check_eq("pushes that were sent while the alarm lasted", wanted - before, sent - before);
    lab.check_eq("calls are accepted when it is over", true, accepted.is_some());
    Ok(())
}

/// How long until a call is answered with this status; nothing if it never is.
async fn seconds_until(client: &Client, status: u16) -> anyhow::Result<Option<f64>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let job = format!("probe-{}", rand::random::<u64>());
        if client.try_notify(&job, "ann", "websocket").await?.status() == status {
            return Ok(Some(begun.elapsed().as_secs_f64()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(None)
}
