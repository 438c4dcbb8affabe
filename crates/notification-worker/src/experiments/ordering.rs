//! In which order do a user's notifications arrive?

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use lab::{Experiment, Lab, Sabotage};
use lapin::{
    BasicProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use rand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    fcm::{FakeFcm, Fate, Sent},
    fixture::{Fixture, Options},
};
use crate::cases::PATIENCE;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Users
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    users: u16,
    /// Notifications for each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(20..=1_000))]
    each: u16,
    /// Milliseconds between one death of a worker and the next
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=5_000))]
    kill_every: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "ordering",
        "With sharding by user, each user's notifications arrive in order, also across a worker's death; with \
         plain competing workers they do not. One that had to be retried may come late, and carries the \
         sequence number by which a client puts it in its place",
        &["--users", "4", "--each", "40", "--kill-every", "300"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/worker.rs",
        replace: "map(|message| message.user_id)",
        with: "map(|message| message.job_id)",
        check: "sharded, across deaths: steps back in a user's sequence",
    })
}

/// Every tenth of each user's is refused once.
fn is_refused_once(number: i64) -> bool {
    number % 10 == 5
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let expected = usize::from(params.users) * usize::from(params.each);
    lab.progress(0, 3, "sharded, and workers killed");
    let (sent, kills, retried) = sharded(&lab, &params, |_| Fate::slow(a_while()), true).await?;
    // What two workers have died over is suspected, and waits: it is one that had to be retried.
    let in_place: Vec<_> =
        sent.iter().filter(|sent| !retried.contains(&sent.job_id)).cloned().collect();
    let (backwards, repeated) = disorder(&in_place);
    lab.figure("retried, since two workers died over it", retried.len() as f64, "");
    lab.figure("workers killed", kills as f64, "");
    lab.figure("sent again because a worker died over it", repeated as f64, "");
    lab.check("workers died over it", "1 or more", kills, kills >= 1);
    lab.check_eq("sharded: all arrived", expected, distinct(&sent));
    lab.check_eq("sharded, across deaths: steps back in a user's sequence", 0, backwards);

    lab.progress(1, 3, "sharded, and one in ten refused once");
    let refused = Mutex::new(HashMap::new());
    let decide = move |sent: &Sent| {
        let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
        let times: &mut u32 = refused.entry(sent.job_id.clone()).or_default();
        *times += 1;
        if is_refused_once(sent.number) && *times == 1 {
            Fate::refused(503, "UNAVAILABLE", None)
        } else {
            Fate::slow(a_while())
        }
    };
    let (sent, ..) = sharded(&lab, &params, decide, false).await?;
    let taken: Vec<_> = sent.into_iter().filter(|sent| sent.status == 200).collect();
    let (late, _) = disorder(&taken);
    let prompt: Vec<_> =
        taken.iter().filter(|sent| !is_refused_once(sent.number)).cloned().collect();
    lab.check("retried: some came late", "1 or more", late, late >= 1);
    lab.check_eq("retried: steps back among those that were not", 0, disorder(&prompt).0);
    // What a client does with the numbers. They may have gaps: a call that was refused has used one up.
    let mut by_number = taken.clone();
    by_number.sort_by_key(|sent| sent.number);
    let whole = (0..params.users).filter(|user| {
        let of = by_number.iter().filter(|sent| sent.device == format!("device-{user}"));
        let posted = (0..params.each).map(|n| format!("job-{user}-{n}"));
        of.map(|sent| sent.job_id.clone()).eq(posted)
    });
    lab.check_eq(
        "retried: users who get the order of the calls by sorting the numbers",
        usize::from(params.users),
        whole.count(),
    );

    lab.progress(2, 3, "plain competing workers");
    let competing = competing(&lab, &params).await?;
    let (backwards, _) = disorder(&competing);
    lab.figure("competing: steps back in a user's sequence", backwards as f64, "");
    // What we compare with: that there was an order to lose is enough.
    let (came, enough) = (distinct(&competing), expected * 9 / 10);
    lab.check("competing: nearly all arrived", format!("{enough} or more"), came, came >= enough);
    lab.check("competing workers lose the order", "1 step back or more", backwards, backwards >= 1);
    Ok(())
}

/// As long as a push may take.
fn a_while() -> Duration {
    Duration::from_millis(rand::rng().random_range(0..8))
}

/// Steps back in a device's sequence, and numbers that come again at once.
fn disorder(sent: &[Sent]) -> (usize, usize) {
    let (mut newest, mut backwards, mut repeated) = (HashMap::new(), 0, 0);
    for Sent { device, number, .. } in sent {
        let newest: &mut i64 = newest.entry(device).or_default();
        backwards += usize::from(number < newest);
        repeated += usize::from(number == newest);
        *newest = (*newest).max(*number);
    }
    (backwards, repeated)
}

fn distinct(sent: &[Sent]) -> usize {
    sent.iter().map(|sent| sent.job_id.as_str()).collect::<HashSet<_>>().len()
}

/// Our own, with two workers. Everything that FCM was sent, how many workers were killed meanwhile, and the jobs
/// that were retried.
async fn sharded(
    lab: &Lab,
    params: &Params,
    decide: impl Fn(&Sent) -> Fate + Send + Sync + 'static,
    killing: bool,
) -> anyhow::Result<(Vec<Sent>, u64, HashSet<String>)> {
    let fixture = Fixture::of(lab, Options { shards: 4, backoff_ms: 100, attempts: 8 }).await?;
    let fcm = FakeFcm::start(decide).await?;
    let (_server, client) = fixture.start(&["--role", "api"]).await?;
    let start = || fixture.worker(&fcm).args(&["--lease-ms", "500"]).start();
    let (one, two) = tokio::try_join!(start(), start())?;
    let mut workers = [one, two];
    let mut posting = JoinSet::new();
    for user in 0..params.users {
        let (client, each) = (client.clone(), params.each);
        posting.spawn(async move {
            let name = format!("user-{user}");
            client.add_device(&name, &format!("device-{user}")).await?;
            for n in 0..each {
                client.push(&format!("job-{user}-{n}"), &name).await?;
            }
            anyhow::Ok(())
        });
    }
    let expected = usize::from(params.users) * usize::from(params.each);
    let took = |sent: &[Sent]| {
        let taken = sent.iter().filter(|sent| sent.status == 200);
        taken.map(|sent| sent.job_id.as_str()).collect::<HashSet<_>>().len()
    };
    let (mut kills, deadline) = (0_u64, Instant::now() + PATIENCE);
    while took(&fcm.sent()) < expected && Instant::now() < deadline {
        sleep(Duration::from_millis(if killing { params.kill_every } else { 20 })).await;
        // No more than five, or the rest would never get its turn.
        if killing && kills < 5 && took(&fcm.sent()) < expected {
            let victim = usize::try_from(kills)? % 2;
            workers[victim].kill().await?;
            kills += 1;
            workers[victim].restart().await?;
        }
    }
    for posted in posting.join_all().await {
        posted?;
    }
    let pool = fixture.database.pool().await?;
    let retried: Vec<String> =
        sqlx::query_scalar("select job_id from notifications where failures > 0")
            .fetch_all(&pool)
            .await?;
    pool.close().await;
    Ok((fcm.sent(), kills, retried.into_iter().collect()))
}

/// The textbook's: one queue, four workers side by side, and whoever is free takes the next.
async fn competing(lab: &Lab, params: &Params) -> anyhow::Result<Vec<Sent>> {
    let mut queues = lab.queues().await?;
    let queue = format!("{}.plain", queues.prefix());
    queues.expect([queue.clone()], [])?;
    let connection = queues.connection().await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.as_str().into(), durable, quorum).await?;

    // All of it first: workers that wait for work one at a time would have no chance to cross.
    for seq in 1..=params.each {
        for user in 0..params.users {
            let job = format!("{user} {seq}");
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel
                .basic_publish(
                    "".into(),
                    queue.as_str().into(),
                    options,
                    job.as_bytes(),
                    properties,
                )
                .await?
                .await?;
        }
    }
    let sent = Arc::new(Mutex::new(Vec::new()));
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        let channel = connection.create_channel().await?;
        channel.basic_qos(8, BasicQosOptions::default()).await?;
        let consuming = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let (mut consumer, sent) = (consuming.await?, sent.clone());
        workers.spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                sleep(a_while()).await;
                let job = String::from_utf8_lossy(&delivery.data).into_owned();
                let (user, number) = job.split_once(' ').unwrap_or_default();
                sent.lock().unwrap_or_else(PoisonError::into_inner).push(Sent {
                    at: Instant::now(),
                    device: user.to_owned(),
                    number: number.parse().unwrap_or(0),
                    job_id: job.clone(),
                    status: 200,
                });
                if delivery.ack(BasicAckOptions::default()).await.is_err() {
                    break;
                }
            }
        });
    }
    let expected = usize::from(params.users) * usize::from(params.each);
    let came = || sent.lock().unwrap_or_else(PoisonError::into_inner).len();
    let deadline = Instant::now() + PATIENCE;
    while came() < expected && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    connection.close(200, "goodbye".into()).await?;
    workers.shutdown().await;
    let sent = std::mem::take(&mut *sent.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(sent)
}
