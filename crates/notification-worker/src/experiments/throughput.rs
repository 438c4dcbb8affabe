//! What does the whole way of a notification cost, beside a bare loop that makes the same promises?

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{self, Outcome, Stop, http::Connection},
};
use lapin::{
    BasicProperties, Channel,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::FieldTable,
};
use sqlx::{Connection as _, PgConnection};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::fixture::{Fixture, Options};
use crate::{
    cases::PATIENCE,
    hub::Live,
    notification::{Channel as Way, JobId, Message, Status, UserId},
    store::{Store, attempts::Begun},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that notify, each without a pause
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.2, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Measurements of each of the two, by turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "throughput",
        "Confirmed publishes and deliveries cost little more than in a bare lapin loop with the same guarantees",
        &["--rounds", "1", "--seconds", "0.5", "--clients", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "if is_new { StatusCode::ACCEPTED }",
        with: "if is_new { StatusCode::CREATED }",
        check: "calls that failed",
    })
}

const SHARDS: u16 = 8;
/// Consumers of one queue in the bare loop. More are no faster: there are two cores, and one database.
const LANES: usize = 4;

/// What one measurement found.
struct Measured {
    accepted: Outcome,
    /// Accepted and delivered, a second, from the first call to the last delivery.
    throughput: f64,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let options = Options { shards: SHARDS, backoff_ms: 200, attempts: 8 };
    let fixture = Fixture::of(&lab, options).await?;
    let (child, _client) = fixture.start(&[]).await?;
    let bare = Bare::start(Fixture::of(&lab, options).await?).await?;
    let (mut ratios, mut rates, mut rows) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
    let (mut accepted, mut failed) = ([0, 0], 0);
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "measured by turns");
        let ours = ours(&fixture, child.address(), &params, round).await?;
        let loops = bare.measure(&params, round).await?;
        ratios.push(ours.throughput / loops.throughput);
        for (n, (name, measured)) in
            [("service", ours), ("bare loop", loops)].into_iter().enumerate()
        {
            rates[n].push(measured.throughput);
            accepted[n] += measured.accepted.ok;
            failed += measured.accepted.failed;
            let through = format!("{:.0}", measured.throughput);
            rows.push([vec![name.to_owned(), through], measured.accepted.cells()].concat());
        }
    }
    let columns = [&["loop", "delivered/s"][..], &Outcome::COLUMNS].concat();
    lab.table("Each measurement; requests are those that are answered", &columns, rows);
    let [service, lapin] = rates.map(load::median);
    lab.figure("through the service, median", service, "notifications/s");
    lab.figure("through the bare loop, median", lapin, "notifications/s");
    let target = Target::AtLeast(0.7);
    lab.figure_with_target("service ÷ bare loop, median", load::median(ratios), "", target);
    lab.check_eq("calls that failed", 0, failed);
    for (name, fixture, accepted) in
        [("the service", &fixture, accepted[0]), ("the bare loop", &bare.fixture, accepted[1])]
    {
        let delivered = delivered(fixture).await?;
        lab.check_eq(format!("delivered by {name}, of those accepted"), accepted, delivered);
    }
    Ok(())
}

async fn delivered(fixture: &Fixture) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(fixture.database.url()).await?;
    let query = "select count(*) from notifications where status = 'delivered'";
    let count: i64 = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(count.unsigned_abs())
}

/// Waits until so many are delivered, and returns when that was.
async fn all_delivered(fixture: &Fixture, count: u64) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while delivered(fixture).await? < count {
        anyhow::ensure!(Instant::now() < deadline, "not all of {count} were delivered");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(Instant::now())
}

async fn ours(
    fixture: &Fixture,
    host: &str,
    params: &Params,
    round: u32,
) -> anyhow::Result<Measured> {
    let before = delivered(fixture).await?;
    let mut clients = Vec::new();
    for client in 0..params.clients {
        clients.push((Connection::open(host).await?, format!("{round}-{client}"), 0_u64));
    }
    let begun = Instant::now();
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    let accepted = load::closed(clients, stop, |(connection, name, n)| {
        Box::pin(async move {
            *n += 1;
            let body = format!(
                r#"{{"job_id":"{name}-{n}","user_id":"user-{name}","channel":"websocket","title":"A title","body":"A body"}}"#
            );
            // A client tries again when it is told to; its time counts.
            for _ in 0..100 {
                let status = connection.send(&connection.post("/notifications", &body)).await?;
                if status != 503 {
                    anyhow::ensure!(status == 202 || status == 200, "{status}");
                    return Ok(());
                }
                sleep(Duration::from_millis(100)).await;
            }
            Err(anyhow::anyhow!("503, again and again"))
        })
    })
    .await?;
    let end = all_delivered(fixture, before + accepted.ok).await?;
    let throughput = accepted.ok as f64 / (end - begun).as_secs_f64();
    Ok(Measured { accepted, throughput })
}

/// What remains when everything is left out that is no promise: the same statements, the same publish with
/// its confirm, the same queues, the same acknowledgement; no HTTP, no JSON of clients, no lanes.
struct Bare {
    fixture: Fixture,
    connection: lapin::Connection,
    failures: Arc<AtomicU64>,
    /// Ends with this.
    _consumers: JoinSet<()>,
}

impl Bare {
    async fn start(fixture: Fixture) -> anyhow::Result<Self> {
        let connection = fixture.queues.connection().await?;
        fixture.topology.declare(&connection.create_channel().await?).await?;
        let live = Live::new(fixture.keys.url(), fixture.keys.prefix())?;
        let (mut consumers, failures) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        for shard in 0..SHARDS {
            let channel = connection.create_channel().await?;
            channel.basic_qos(64, BasicQosOptions::default()).await?;
            let queue = fixture.topology.queue(shard);
            let options = BasicConsumeOptions::default();
            let consuming =
                channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
            let consumer = consuming.await?;
            for _ in 0..LANES {
                let mut lane =
                    (consumer.clone(), PgConnection::connect(fixture.database.url()).await?);
                let (live, failures) = (live.clone(), failures.clone());
                consumers.spawn(async move {
                    while let Some(Ok(delivery)) = lane.0.next().await {
                        let done = deliver(&delivery.data, &mut lane.1, &live).await;
                        if done.is_err() || delivery.ack(BasicAckOptions::default()).await.is_err()
                        {
                            failures.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        }
        Ok(Self { fixture, connection, failures, _consumers: consumers })
    }

    async fn measure(&self, params: &Params, round: u32) -> anyhow::Result<Measured> {
        let before = delivered(&self.fixture).await?;
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut clients = Vec::new();
        for client in 0..params.clients {
            let user =
                UserId::try_from(format!("user-{round}-{client}")).map_err(anyhow::Error::msg)?;
            let shard = self.fixture.topology.shard_of(&user);
            clients.push(Client {
                database: PgConnection::connect(self.fixture.database.url()).await?,
                channel: channel.clone(),
                queue: self.fixture.topology.queue(shard),
                user,
                n: 0,
            });
        }
        let begun = Instant::now();
        let stop = Stop::After(Duration::from_secs_f64(params.seconds));
        let accepted = load::closed(clients, stop, |client| Box::pin(client.accept())).await?;
        let end = all_delivered(&self.fixture, before + accepted.ok).await?;
        anyhow::ensure!(self.failures.load(Ordering::Relaxed) == 0, "the bare loop failed");
        let throughput = accepted.ok as f64 / (end - begun).as_secs_f64();
        channel.close(200, "goodbye".into()).await?;
        Ok(Measured { accepted, throughput })
    }
}

/// One that publishes.
struct Client {
    database: PgConnection,
    channel: Channel,
    queue: String,
    user: UserId,
    n: u64,
}

impl Client {
    async fn accept(&mut self) -> anyhow::Result<()> {
        self.n += 1;
        let job_id = JobId::try_from(format!("{}-{}", self.user.as_str(), self.n));
        let job_id = job_id.map_err(anyhow::Error::msg)?;
        sqlx::query(Store::RECORD)
            .bind(&job_id)
            .bind(&self.user)
            .bind(Way::Websocket)
            .bind("A title")
            .bind("A body")
            .execute(&mut self.database)
            .await?;
        let message = Message { job_id, user_id: self.user.clone(), alone: false };
        let payload = serde_json::to_vec(&message)?;
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let queue = self.queue.as_str().into();
        let publish = self.channel.basic_publish("".into(), queue, options, &payload, properties);
        let confirmation = publish.await?.await?;
        anyhow::ensure!(matches!(confirmation, lapin::Confirmation::Ack(None)), "not confirmed");
        Ok(())
    }
}

/// Claim, place, tell, settle: the statements of the service, one after another.
async fn deliver(payload: &[u8], database: &mut PgConnection, live: &Live) -> anyhow::Result<()> {
    let message: Message = serde_json::from_slice(payload)?;
    let begun: Begun = sqlx::query_as(Store::CLAIM)
        .bind(&message.job_id)
        .bind("bare")
        .fetch_one(&mut *database)
        .await?;
    sqlx::query(Store::PLACE).bind(&begun.job_id).execute(&mut *database).await?;
    live.tell(&begun.user_id).await;
    let settled = sqlx::query(Store::SETTLE)
        .bind(&begun.job_id)
        .bind(begun.attempts)
        .bind(Status::Delivered)
        .bind(0)
        .bind(None::<String>)
        .bind(None::<f64>)
        .execute(database)
        .await?;
    anyhow::ensure!(settled.rows_affected() == 1, "somebody else settled it");
    Ok(())
}
