//! What is lost, and what is shown twice, when workers are killed all the time?

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lab::{Experiment, Lab, Sabotage, child::Child};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    fcm::{FakeFcm, Fate, Sent},
    fixture::{Fixture, Options},
    seen::Seen,
};
use crate::cases::{PATIENCE, client::Client};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Seconds of load
    #[arg(long, default_value_t = 8.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Milliseconds between one kill and the next
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    kill_every: u64,
    /// Workers; each is started again at once when it was killed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=8))]
    workers: u16,
    /// Users, each with an open socket and a device
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    users: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "crash-worker",
        "Workers are killed with SIGKILL all the time under load: every accepted notification arrives, and \
         none shows twice at the receiver (by its job id)",
        &["--seconds", "1.8", "--users", "4", "--workers", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/worker.rs",
        replace: "let Some(Ok(delivery)) = next else { break };",
        with: r"let Some(Ok(delivery)) = next else { break };
            delivery.ack(lapin::options::BasicAckOptions::default()).await?;",
        check: "accepted notifications that no socket saw",
    })
}

/// Notifications of which one can say that they were a load.
const ENOUGH: usize = 100;
/// What does not come within this time after the last kill is lost.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// The jobs that were answered with 202: of each user, by channel.
type Accepted = Arc<Mutex<Vec<(u16, &'static str, String)>>>;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, Options { shards: 4, backoff_ms: 100, attempts: 8 }).await?;
    let fcm = FakeFcm::start(|_| Fate::slow(Duration::from_millis(25))).await?;
    let (_server, client) = fixture.start(&["--role", "api"]).await?;
    let worker = || fixture.worker(&fcm).args(&["--lease-ms", "500"]);
    let mut workers = Vec::new();
    for _ in 0..params.workers {
        workers.push(worker().start().await?);
    }
    for user in 0..params.users {
        client.add_device(&format!("user-{user}"), &format!("device-{user}")).await?;
    }
    let (accepted, over) = (Accepted::default(), CancellationToken::new());
    let answered = CancellationToken::new();
    let mut watching = JoinSet::new();
    for user in 0..params.users {
        watching.spawn(watch(client.clone(), user, accepted.clone(), answered.clone()));
    }
    let posting = post(&client, params.users, &accepted, &over);
    let kills = kill(&lab, &params, &fixture, &mut workers, &accepted).await?;
    over.cancel();
    posting.join_all().await;
    answered.cancel();
    lab.progress(kills, kills, "waiting for what was accepted");
    let accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of = |channel| accepted.iter().filter(move |(_, of, _)| *of == channel);
    let pushes: HashSet<_> = of("push").map(|job| job.2.as_str()).collect();
    let all_came = |sent: &Vec<Sent>| {
        let came: HashSet<_> = sent.iter().map(|sent| sent.job_id.as_str()).collect();
        pushes.is_subset(&came)
    };
    // Side by side: what is lost is waited for in vain, and once is enough.
    let (watched, came) =
        tokio::join!(watching.join_all(), fcm.until("every push", LOST_AFTER, all_came));
    let came = came.unwrap_or_else(|_| fcm.sent());
    let (mut missing, mut twice, mut live) = (0, 0, 0);
    for Watched { missing: lost, twice: again, live: seen } in watched {
        (missing, twice, live) = (missing + lost, twice + again, live + seen);
    }
    let mut times: HashMap<&str, usize> = HashMap::new();
    for sent in &came {
        *times.entry(&sent.job_id).or_default() += 1;
    }
    let lost_pushes = pushes.iter().filter(|job| !times.contains_key(**job)).count();
    let again = times.values().filter(|&&times| times > 1).count();

    lab.figure("workers killed", kills as f64, "");
    lab.figure("accepted, to sockets", of("websocket").count() as f64, "");
    lab.figure("accepted, to devices", pushes.len() as f64, "");
    let cut_off = crashes(&fixture).await?;
    lab.figure("seen by open sockets while workers died", live as f64, "");
    lab.figure("pushes that FCM was sent twice: at least once is all there is", again as f64, "");
    lab.check("the kills were real", "3 or more", kills, kills >= 3);
    // A worker that had nothing in hand proves nothing by its death.
    lab.check("attempts that a kill cut off", "1 or more", cut_off, cut_off >= 1);
    let load = accepted.len();
    lab.check("the load was real", format!("{ENOUGH} or more"), load, load >= ENOUGH);
    lab.check_eq("accepted notifications that no socket saw", 0, missing);
    lab.check_eq("notifications that a socket saw twice", 0, twice);
    lab.check_eq("accepted pushes that FCM did not get", 0, lost_pushes);
    Ok(())
}

/// What the owner of one socket saw.
struct Watched {
    /// Of what was accepted for the user, what never came.
    missing: usize,
    /// What came more than once.
    twice: usize,
    /// What came while the load lasted.
    live: usize,
}

/// Watches a user's stream until every call is answered, and then until everything is there that was accepted.
async fn watch(
    client: Client,
    user: u16,
    accepted: Accepted,
    answered: CancellationToken,
) -> Watched {
    let (name, mut seen) = (format!("user-{user}"), Seen::default());
    let far = Instant::now() + Duration::from_hours(1);
    tokio::select! {
        () = seen.watch(&client, &name, usize::MAX, far) => {}
        () = answered.cancelled() => {}
    }
    let live = seen.frames.len();
    let jobs: Vec<_> = {
        let accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let own = accepted.iter().filter(|job| job.0 == user && job.1 == "websocket");
        own.map(|job| job.2.clone()).collect()
    };
    seen.watch_for(&client, &name, &jobs, Instant::now() + LOST_AFTER).await;
    Watched { missing: seen.missing(&jobs), twice: seen.twice(), live }
}

/// A client for each user, who posts to the socket and the device by turns until it is over.
fn post(client: &Client, users: u16, accepted: &Accepted, over: &CancellationToken) -> JoinSet<()> {
    let mut posting = JoinSet::new();
    for user in 0..users {
        let (client, accepted, over) = (client.clone(), accepted.clone(), over.clone());
        posting.spawn(async move {
            for n in 0_u64.. {
                if over.is_cancelled() {
                    break;
                }
                let channel = if n.is_multiple_of(2) { "websocket" } else { "push" };
                let job = format!("job-{user}-{n}");
                let answer = client.try_notify(&job, &format!("user-{user}"), channel).await;
                if answer.is_ok_and(|answer| answer.status() == 202) {
                    let mut accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                    accepted.push((user, channel, job));
                }
                sleep(Duration::from_millis(10)).await;
            }
        });
    }
    posting
}

/// Kills one worker after the other, as long as the load lasts: on a slow machine until it deserves the name. How
/// many were killed.
async fn kill(
    lab: &Lab,
    params: &Params,
    fixture: &Fixture,
    workers: &mut [Child],
    accepted: &Accepted,
) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let (end, latest) = (begun + Duration::from_secs_f64(params.seconds), begun + PATIENCE * 2);
    // Not as long for this: a worker that acknowledges before it works never shows that it was cut off.
    let cut_off_by = begun + PATIENCE / 2;
    let is_enough = || accepted.lock().unwrap_or_else(PoisonError::into_inner).len() >= ENOUGH;
    let mut kills = 0;
    while Instant::now() < end
        || (Instant::now() < latest && !(is_enough() && kills >= 3))
        || (Instant::now() < cut_off_by && crashes(fixture).await? == 0)
    {
        sleep(Duration::from_millis(params.kill_every)).await;
        let victim = usize::try_from(kills)? % workers.len();
        workers[victim].kill().await?;
        kills += 1;
        workers[victim].restart().await?;
        lab.progress(kills, 0, "workers killed under load");
    }
    Ok(kills)
}

async fn crashes(fixture: &Fixture) -> anyhow::Result<i64> {
    let pool = fixture.database.pool().await?;
    let crashes = sqlx::query_scalar("select coalesce(sum(crashes), 0)::bigint from notifications")
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    Ok(crashes)
}
