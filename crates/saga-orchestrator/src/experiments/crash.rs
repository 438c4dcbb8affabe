//! How is a process killed at every point of a protocol? A proxy before each of its servers counts its messages; at one
//! of them the process is killed; and then again, at the next.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use conform::target::within;
use lab::{
    Lab,
    child::Child,
    database::Database,
    fault::{Fault, Proxy, Side},
    queues::Queues,
};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    books::{Books, effects},
    compare::reactions::Service,
    fixture::{ALL, Fixture, Participants, book_order, end_within, is_end, queues, start},
};
use crate::cases::client::{AMOUNT, Client, PATIENCE};

/// More than any run sells.
const STOCK: i64 = 100_000;
/// A part of the protocol is through when so many orders have ended before the message came.
const ENOUGH: u32 = 2;
/// An order that takes longer does not end any more. Long: on a busy machine a new process, with its queues, took twenty
/// seconds; and short beside the poll, which would hide a wake-up that was lost.
const LONGEST: Duration = Duration::from_mins(2);

/// Which way an order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Nobody refuses.
    Success,
    /// Shipping refuses, so that all that was done is undone.
    Failure,
}

impl Path {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }

    fn end(self) -> &'static str {
        match self {
            Self::Success => "confirmed",
            Self::Failure => "cancelled",
        }
    }
}

/// When the process is killed, as seen from a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// The message never arrives.
    Before,
    /// It has just arrived.
    After,
    /// It arrives when everything is over: the network held it back.
    Late,
}

const MOMENTS: [Moment; 3] = [Moment::Before, Moment::After, Moment::Late];

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The orchestrator.
    Orchestrator,
    /// All four services that dance without one.
    Choreography,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    part: usize,
    message: u64,
    moment: Moment,
}

/// One part of the protocol: a path, and the server that is spoken to.
#[derive(Debug)]
struct Part {
    path: Path,
    server: usize,
    /// The next message, as an index of messages and moments.
    next: u64,
    /// Orders that had ended before the message came.
    ended: u32,
    /// Points at which the process was killed.
    killed: u64,
}

/// Gives out every point once, until an order does not end: each further one would only take as long again.
struct Points {
    parts: Mutex<Vec<Part>>,
    is_over: AtomicBool,
}

impl Points {
    fn next(&self) -> Option<(Point, Path, usize)> {
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, part) = parts.iter_mut().enumerate().find(|(_, part)| part.ended < ENOUGH)?;
        let (message, moment) = (part.next / 3 + 1, MOMENTS[usize::try_from(part.next % 3).ok()?]);
        part.next += 1;
        Some((Point { part: number, message, moment }, part.path, part.server))
    }

    fn done(&self, point: Point, was_killed: bool) -> u64 {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let part = &mut parts[point.part];
        if was_killed {
            part.killed += 1;
        } else {
            part.ended += 1;
        }
        parts.iter().map(|part| part.killed).sum()
    }
}

/// A process to be killed, with what is its own.
pub struct Lane {
    number: u16,
    process: Proxied,
    fixture: Fixture,
}

/// A process that reaches its servers through proxies only.
pub struct Proxied {
    pub child: Child,
    pub client: Client,
    /// A proxy before each of its servers.
    pub servers: Vec<Proxy>,
    /// Those of a choreography, deleted in the end; and their prefix.
    queues: Option<(Queues, String)>,
}

impl Proxied {
    /// All four services without an orchestrator. Their servers are the broker and their four databases.
    pub async fn choreography(lab: &Lab, fixture: &Fixture, poll_ms: &str) -> anyhow::Result<Self> {
        let amqp = lab.server(lab::Service::RabbitMq).await?;
        let (queues, prefix) = queues().await?;
        let (mut servers, mut urls) = (Vec::new(), Vec::new());
        let [inventory, payment, shipping] = fixture.parts.databases().map(Database::url);
        for server in [&amqp, fixture.orders.url(), inventory, payment, shipping] {
            let proxy = Proxy::to_url(server).await?;
            urls.push(proxy.url(server)?);
            servers.push(proxy);
        }
        let process = fixture
            .serve_on([&urls[2], &urls[3], &urls[4]])
            .env("DATABASE_URL", &urls[1])
            .args(&["--flow", "choreography", "--amqp-url", &urls[0]])
            .args(&["--queue-prefix", &prefix, "--poll-ms", poll_ms]);
        let (child, client) = start(process).await?;
        Ok(Self { child, client, servers, queues: Some((queues, prefix)) })
    }

    /// What is where when an order does not end: the outboxes, the queues and the log of the process. The process is
    /// killed, to see what it held without having acknowledged it.
    pub async fn whereabouts(&mut self, fixture: &Fixture) -> anyhow::Result<String> {
        let mut lines = vec![format!("the log of the process:\n{}", self.child.log())];
        let [inventory, payment, shipping] = fixture.parts.databases();
        let databases = [&fixture.orders, inventory, payment, shipping];
        let services = Service::ALL.into_iter().zip(databases);
        let Some((queues, prefix)) = &self.queues else { return Ok(lines.concat()) };
        let channel = queues.connection().await?.create_channel().await?;
        let queue = async |service: Service| {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let name = format!("{prefix}{}", service.name());
            channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await
        };
        for (service, database) in services {
            let mut direct = PgConnection::connect(database.url()).await?;
            let outbox: i64 =
                sqlx::query_scalar("select count(*) from outbox").fetch_one(&mut direct).await?;
            direct.close().await?;
            let seen = queue(service).await?;
            lines.push(format!(
                "{}: {outbox} in the outbox; in its queue {} ready, {} consumers",
                service.name(),
                seen.message_count(),
                seen.consumer_count()
            ));
        }
        self.child.kill().await?;
        sleep(Duration::from_secs(1)).await;
        for service in Service::ALL {
            let seen = queue(service).await?.message_count();
            lines.push(format!("{}: {seen} ready, now that the process is gone", service.name()));
        }
        Ok(lines.join("\n"))
    }

    /// How many messages it has sent so far.
    pub fn messages(&self) -> u64 {
        self.servers.iter().map(Proxy::messages).sum()
    }
}

/// An order of the run, and where it was disturbed.
struct Ended {
    id: Uuid,
    path: Path,
    status: String,
    words: String,
    parts: Arc<Participants>,
}

/// Kills it everywhere, and checks what is left.
pub async fn everywhere(
    lab: &Lab,
    paths: &[Path],
    servers: &[usize],
    lanes: u16,
    what: What,
) -> anyhow::Result<()> {
    let names: &[&str] = match what {
        What::Orchestrator => &["its database", "inventory", "payment", "shipping"],
        What::Choreography => {
            &["the broker", "orders' database", "inventory's", "payment's", "shipping's"]
        }
    };
    let parts = paths.iter().flat_map(|&path| {
        servers.iter().map(move |&server| Part { path, server, next: 0, ended: 0, killed: 0 })
    });
    let parts = Mutex::new(parts.collect());
    let points = Arc::new(Points { parts, is_over: AtomicBool::new(false) });
    // Participants of their own for each lane of the choreography, since they are what is killed there.
    let shared = match what {
        What::Orchestrator => {
            let fixture = Fixture::of(lab).await?;
            fixture.parts.stock(STOCK).await?;
            let participants = fixture.serve_only(ALL).start().await?;
            Some((fixture, participants))
        }
        What::Choreography => None,
    };
    let mut work = JoinSet::new();
    for number in 0..lanes {
        let lane = match &shared {
            Some((fixture, participants)) => {
                Lane::orchestrator(number, fixture, participants).await?
            }
            None => Lane::choreography(number, lab).await?,
        };
        let (lab, points) = (lab.clone(), points.clone());
        work.spawn(async move { lane.work(&lab, &points).await });
    }
    let mut orders = Vec::new();
    while let Some(done) = work.join_next().await {
        orders.extend(done.context("a lane panicked")??);
    }
    report(lab, names, &points, &orders);
    verdict(lab, orders).await
}

impl Lane {
    async fn orchestrator(
        number: u16,
        shared: &Fixture,
        participants: &Child,
    ) -> anyhow::Result<Self> {
        let fixture = shared.beside().await?;
        let mut servers = vec![Proxy::to_url(fixture.orders.url()).await?];
        for _ in 0..3 {
            servers.push(Proxy::to(participants.address()).await?);
        }
        let orchestrator = fixture
            .orchestrator([1, 2, 3].map(|server| servers[server].address()))
            .env("DATABASE_URL", servers[0].url(fixture.orders.url())?)
            // A short lease, so that the next one need not wait long for the dead one's to end.
            .args(&["--poll-ms", "600000", "--lease-ms", "150", "--backoff-ms", "20"]);
        let (child, client) = start(orchestrator).await?;
        let process = Proxied { child, client, servers, queues: None };
        Ok(Self { number, process, fixture })
    }

    async fn choreography(number: u16, lab: &Lab) -> anyhow::Result<Self> {
        let fixture = Fixture::of(lab).await?;
        fixture.parts.stock(STOCK).await?;
        // With a poll that comes too late to hide a lost wake-up.
        let process = Proxied::choreography(lab, &fixture, "600000").await?;
        Ok(Self { number, process, fixture })
    }

    /// Takes points until there are no more.
    async fn work(mut self, lab: &Lab, points: &Points) -> anyhow::Result<Vec<Ended>> {
        let mut direct = PgConnection::connect(self.fixture.orders.url()).await?;
        let mut ended = Vec::new();
        self.settle().await;
        while let Some((point, path, server)) = points.next() {
            let words = format!(
                "{}, {:?} message {} to server {server}",
                path.name(),
                point.moment,
                point.message
            );
            let key = format!("{} {} {:?}", self.number, words, point.part);
            let (id, status, was_killed) = self
                .disturb(&mut direct, &key, point, path, server)
                .await
                .with_context(|| words.clone())?;
            if !is_end(&status) {
                points.is_over.store(true, Ordering::Relaxed);
                lab.text(self.process.whereabouts(&self.fixture).await?);
            }
            let killed = points.done(point, was_killed);
            lab.progress(killed, 0, "points at which it was killed");
            let parts = Arc::clone(&self.fixture.parts);
            ended.push(Ended { id, path, status, words, parts });
        }
        Ok(ended)
    }

    /// Waits until nothing is said any more, so that the next message is one of the next order.
    async fn settle(&self) {
        let mut before = 0;
        while before != self.process.messages() {
            before = self.process.messages();
            sleep(Duration::from_millis(15)).await;
        }
    }

    /// One order, and one kill at this point, if it comes to it.
    async fn disturb(
        &mut self,
        direct: &mut PgConnection,
        key: &str,
        point: Point,
        path: Path,
        server: usize,
    ) -> anyhow::Result<(Uuid, String, bool)> {
        let proxy = &self.process.servers[server];
        let side = if point.moment == Moment::After { Side::After } else { Side::Before };
        let caught = proxy.at_message(proxy.messages() + point.message, side);
        let order = book_order("pm_card_visa", if path == Path::Success { "GB" } else { "XX" });
        let placing = tokio::spawn(place(self.process.client.clone(), key.to_owned(), order));
        let held = tokio::select! {
            // First: the order may end with the last message, and then both are there before we look.
            biased;
            held = caught => Some(held?),
            ended = end_within(direct, key, LONGEST) => {
                ended?;
                None
            }
        };
        let was_killed = held.is_some();
        if let Some(held) = held {
            self.process.child.kill().await?;
            let late = if point.moment == Moment::Before {
                // What the dead process had sent and we held back is thrown away with its connection.
                proxy.set(Fault::Cut);
                held.gone().await;
                proxy.heal();
                None
            } else {
                Some(held).filter(|_| point.moment == Moment::Late)
            };
            self.process.child.restart().await?;
            end_within(direct, key, LONGEST).await?;
            drop(late);
        } else {
            // No message has the number 0: the trap is taken away.
            drop(proxy.at_message(0, Side::Before));
        }
        let answered = placing.await.context("the client panicked")??;
        self.settle().await;
        let (id, status) = end_within(direct, key, Duration::ZERO).await?;
        anyhow::ensure!(answered == id, "the client was told of another order");
        Ok((id, status, was_killed))
    }
}

/// Places an order as a client that knows nothing of all this: it asks until it is answered, always with the same key.
async fn place(client: Client, key: String, order: Value) -> anyhow::Result<Uuid> {
    let begun = Instant::now();
    loop {
        match client.place_order(&key, &order).await {
            Err(_) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(10)).await,
            placed => return placed,
        }
    }
}

fn report(lab: &Lab, names: &[&str], points: &Points, orders: &[Ended]) {
    let parts = points.parts.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = parts.iter().map(|part| {
        let messages = part.killed.div_ceil(3);
        vec![
            part.path.name().to_owned(),
            names[part.server].to_owned(),
            messages.to_string(),
            part.killed.to_string(),
        ]
    });
    let columns = ["path", "messages to", "messages", "kills: before, after, and with it late"];
    lab.table("Where it was killed", &columns, rows.collect());
    let killed: u64 = parts.iter().map(|part| part.killed).sum();
    lab.figure("points at which it was killed", killed as f64, "");
    lab.figure("orders", orders.len() as f64, "");
    lab.check(
        "there were messages to die at on every way",
        "1 or more to each server that takes part",
        format!("{:?}", parts.iter().map(|part| part.killed).collect::<Vec<_>>()),
        parts.iter().all(|part| part.killed > 0),
    );
}

/// Every order, and the sums of all.
async fn verdict(lab: &Lab, orders: Vec<Ended>) -> anyhow::Result<()> {
    let mut wrong_end = Vec::new();
    let mut wrong_effects = Vec::new();
    let mut by_books: HashMap<usize, (Arc<Participants>, Vec<Ended>)> = HashMap::new();
    for order in orders {
        let entry = by_books
            .entry(Arc::as_ptr(&order.parts).addr())
            .or_insert_with(|| (Arc::clone(&order.parts), Vec::new()));
        entry.1.push(order);
    }
    let (mut sold, mut cents, mut left, mut parcels, mut confirmed) = (0, 0, 0, 0, 0);
    for (parts, orders) in by_books.into_values() {
        // What was late may still be on its way through. An order that has not ended keeps what it has.
        if orders.iter().all(|order| is_end(&order.status)) {
            let quiet = within(PATIENCE, "nothing is reserved", async || {
                Ok((Books::of(&parts).await?.reserved == 0).then_some(()))
            });
            quiet.await?;
        }
        let effects = effects(&parts).await?;
        for order in &orders {
            if order.status != order.path.end() {
                wrong_end.push(format!("{}: {}", order.words, order.status));
            }
            let seen = effects.get(&order.id).copied().unwrap_or_default();
            if !seen.agree_with(&order.status) {
                wrong_effects.push(format!("{}: {seen:?}", order.words));
            }
        }
        let books = Books::of(&parts).await?;
        confirmed += orders.iter().map(|it| i64::from(it.status == "confirmed")).sum::<i64>();
        sold += books.sold;
        cents += books.cents;
        parcels += books.parcels;
        left += STOCK - books.available;
    }
    let none = "none";
    let list = |wrong: &[String]| if wrong.is_empty() { none.to_owned() } else { wrong.join("; ") };
    lab.check(
        "orders that did not end as they should",
        none,
        list(&wrong_end),
        wrong_end.is_empty(),
    );
    lab.check(
        "orders of which an effect happened twice, or was not undone once",
        none,
        list(&wrong_effects),
        wrong_effects.is_empty(),
    );
    lab.check_eq("items sold, for the orders confirmed", confirmed, sold);
    lab.check_eq("items that have left the stock", confirmed, left);
    lab.check_eq("cents charged and not refunded", confirmed * AMOUNT, cents);
    lab.check_eq("parcels on their way", confirmed, parcels);
    Ok(())
}
