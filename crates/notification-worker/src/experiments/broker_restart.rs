//! What is lost when the broker is killed under load, and comes back?

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use lab::{Experiment, Lab, Need, Sabotage, Service, queues::Queues};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    fixture::{Fixture, Options},
    seen::Seen,
};
use crate::cases::{PATIENCE, client::Client};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Times that the broker is killed
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=20))]
    rounds: u64,
    /// Seconds of load before each kill, and after the last
    #[arg(long, default_value_t = 1.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Clients that notify, each a user of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "broker-restart",
        "RabbitMQ is killed and restarted under load: nothing that was answered with 202 is lost",
        &["--rounds", "1", "--seconds", "0.7", "--clients", "4"],
        run,
    )
    .needs(&[Need::Own(Service::RabbitMq)])
    .sabotage(Sabotage {
        file: "src/accept.rs",
        replace: "Err(error) if is_new && store.withdraw(&new.job_id).await? => Err(error)",
        with: "Err(_) if is_new => return Ok(true)",
        check: "accepted notifications that did not arrive",
    })
}

/// What is killed within a second of its declaration comes back without a leader on one node of 3.10.8, for good
/// (compare rabbitmq-server issue 10070; tried with 0.4, 0.7, 1.5 and 4 s). Nobody declares queues while the broker
/// is dying, so ours are older than that.
pub(super) const SETTLED: Duration = Duration::from_secs(3);
/// Accepted notifications of which one can say that they were a load.
const ENOUGH: usize = 50;
/// What does not come within this time after the last restart is lost.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(45);
/// A broker that has come back serves all its queues by then, or it is restarted again, and that is counted.
const COMES_BACK: Duration = Duration::from_secs(20);

/// What the clients were told.
#[derive(Default)]
pub(super) struct Told {
    /// The jobs of each client that were answered with 202.
    pub(super) accepted: Vec<(u16, String)>,
    /// Answers with 503, and those of them without `Retry-After`.
    pub(super) refused: (u64, u64),
    /// Anything else.
    pub(super) others: Vec<String>,
    slowest: Duration,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut broker = lab.own_server(Service::RabbitMq).await?;
    let queues = Queues::fresh_on(&broker.url()?, "notification-worker");
    tokio::try_join!(lab.server(Service::Postgres), lab.server(Service::Redis))?;
    let fixture = Fixture::on(queues, Options { shards: 2, backoff_ms: 100, attempts: 8 }).await?;
    let (server, client) = fixture.start(&[]).await?;
    let (told, stop) = (Arc::new(Mutex::new(Told::default())), CancellationToken::new());
    let mut load = JoinSet::new();
    for number in 0..params.clients {
        load.spawn(notify(client.clone(), number, told.clone(), stop.clone()));
    }
    lab.progress(0, params.rounds, "letting the queues settle");
    let begun = Instant::now();
    // And on a slow machine, until there is something to lose.
    while begun.elapsed() < SETTLED
        || (lock(&told).accepted.len() < ENOUGH && begun.elapsed() < PATIENCE)
    {
        sleep(Duration::from_millis(50)).await;
    }
    let (mut outages, mut resumed, mut leaderless) = (Vec::new(), 0, 0);
    for round in 0..params.rounds {
        lab.progress(round, params.rounds, "broker killed under load");
        sleep(Duration::from_secs_f64(params.seconds)).await;
        broker.kill().await?;
        let killed = Instant::now();
        // Long enough for calls that were under way, and for some that find it away.
        sleep(Duration::from_millis(500)).await;
        let before = lock(&told).accepted.len();
        broker.restart().await?;
        let mut back = all_served(&told, before, params.clients).await;
        // What an operator does whose probe says that the broker has come back without some of its queues.
        while !back && leaderless < 3 * params.rounds && lock(&told).others.is_empty() {
            leaderless += 1;
            broker.kill().await?;
            broker.restart().await?;
            back = all_served(&told, before, params.clients).await;
        }
        resumed += u64::from(back);
        outages.push(killed.elapsed().as_secs_f64());
    }
    sleep(Duration::from_secs_f64(params.seconds)).await;
    stop.cancel();
    load.join_all().await;

    lab.progress(params.rounds, params.rounds, "reading what arrived");
    let told = std::mem::take(&mut *lock(&told));
    // All at once: what is lost is waited for in vain, and once is enough.
    // A service that answers with errors is refuted already.
    let patience = if told.others.is_empty() { LOST_AFTER } else { LOST_AFTER / 9 };
    let latest = Instant::now() + patience;
    let reading = (0..params.clients).map(|number| {
        let jobs = told.accepted.iter().filter(|(of, _)| *of == number);
        let jobs: Vec<_> = jobs.map(|(_, job)| job.clone()).collect();
        let client = &client;
        async move {
            let mut seen = Seen::default();
            seen.watch_for(client, &user(number), &jobs, latest).await;
            (seen.missing(&jobs), seen.twice())
        }
    });
    let (missing, twice): (Vec<_>, Vec<_>) = join_all(reading).await.into_iter().unzip();
    let (missing, twice) = (missing.iter().sum::<usize>(), twice.iter().sum::<usize>());
    if resumed < params.rounds {
        lab.text(format!("The service's last words:\n{}", server.log()));
    }
    lab.figure("accepted", told.accepted.len() as f64, "");
    let again = "restarts that left a queue without a leader, and were made again";
    lab.figure(again, leaderless as f64, "");
    lab.figure("refused with 503 meanwhile", told.refused.0 as f64, "");
    lab.figure(
        "longest outage, from the kill to the next 202",
        outages.iter().copied().fold(0.0, f64::max),
        "s",
    );
    lab.figure("slowest answer", told.slowest.as_secs_f64(), "s");
    let load = told.accepted.len();
    lab.check("the load was real", format!("{ENOUGH} or more"), load, load >= ENOUGH);
    lab.check("the outage was felt", "a 503 or more", told.refused.0, told.refused.0 >= 1);
    lab.check_eq("answers with 503 that do not say when to come back", 0, told.refused.1);
    lab.check(
        "nothing else was answered",
        "only 202 and 503",
        format!("{:?}", told.others),
        told.others.is_empty(),
    );
    lab.check_eq("restarts after which notifications were accepted again", params.rounds, resumed);
    lab.check_eq("accepted notifications that did not arrive", 0, missing);
    lab.check_eq("notifications that arrived twice", 0, twice);
    Ok(())
}

/// A panic cannot leave it half changed, so poison is ignored.
pub(super) fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until each client, and so each shard that any of them is on, has been served again. An answer that is neither
/// 202 nor 503 has settled the matter.
pub(super) async fn all_served(told: &Mutex<Told>, before: usize, clients: u16) -> bool {
    let deadline = Instant::now() + COMES_BACK;
    while Instant::now() < deadline && lock(told).others.is_empty() {
        let served: HashSet<_> =
            lock(told).accepted[before..].iter().map(|(number, _)| *number).collect();
        if served.len() == usize::from(clients) {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

pub(super) fn user(number: u16) -> String {
    format!("user-{number}")
}

/// Notifies one user again and again, as a client does that has nothing else to do.
pub(super) async fn notify(
    client: Client,
    number: u16,
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
) {
    for n in 0_u64.. {
        if stop.is_cancelled() {
            return;
        }
        let job = format!("job-{number}-{n}");
        let begun = Instant::now();
        let answer = client.try_notify(&job, &user(number), "websocket").await;
        let took = begun.elapsed();
        {
            let mut told = lock(&told);
            told.slowest = told.slowest.max(took);
            match answer {
                Ok(answer) if answer.status() == 202 => told.accepted.push((number, job)),
                Ok(answer) if answer.status() == 503 => {
                    told.refused.0 += 1;
                    let says = answer.headers().contains_key("retry-after");
                    told.refused.1 += u64::from(!says);
                }
                Ok(answer) => told.others.push(answer.status().to_string()),
                Err(error) => told.others.push(error.to_string()),
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}
