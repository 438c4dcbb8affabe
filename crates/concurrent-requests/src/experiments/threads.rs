//! Thousands of connections are open and idle. What does each cost, with a thread for each and with a task for each?

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Need, Sabotage, Target, load::http::Connection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    echo::{By, Echo, memory, threads_named},
    fixture::{Clients, Fixture, product},
};

/// Connections that are never idle.
const BUSY: usize = 50;
/// Clients that send half an order.
const SLOW: usize = 100;
/// Products that are read meanwhile, and how long a client waits for each, at the most.
const READS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Connections that are open and idle
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(100..=10_000))]
    idle: u16,
    /// Messages of each busy connection
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(10..=10_000))]
    messages: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "threads",
        "A server with a thread for each connection has as many threads as idle connections; one with tasks has two. The shop \
         uses at most 64 KiB for each, and answers others while thousands are open and a hundred clients have sent half an \
         order",
        &["--idle", "300", "--messages", "50"],
        run,
    )
    .needs(&[Need::Linux])
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "let body = Bytes::from_request(body, &()).await.map_err(JsonRejection::from)?;\n    let mut place = \
                  shop.admission.enter(priority, deadline).await?;",
        with: "let mut place = shop.admission.enter(priority, deadline).await?;\n    let body = \
               Bytes::from_request(body, &()).await.map_err(JsonRejection::from)?;",
        check: "shop: products read beside idle connections and half-sent orders",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab::open_files::allow_many();
    let mut rows = Vec::new();
    let mut rates = Vec::new();
    for by in [By::Task, By::Thread] {
        lab.progress(rows.len() as u64, 3, by.name());
        let seen = echo(by, params).await?;
        rates.push(seen.rate);
        rows.push(vec![
            by.name().to_owned(),
            seen.connections.to_string(),
            seen.threads.to_string(),
            format!("{:.1}", seen.memory),
            format!("{:.0}", seen.rate),
            format!("{:.2}", seen.switches),
        ]);
        let name = by.name();
        // Threads use memory again that others have left, so this says little of what a new one takes.
        let figure = format!("{name}: memory for an idle connection, both ends, resident");
        lab.figure(figure, seen.memory, "KiB");
        lab.figure(
            format!("{name}: switches for a message, {BUSY} busy connections"),
            seen.switches,
            "",
        );
        let check = format!("{name}: threads for {} idle connections", seen.connections);
        match by {
            By::Thread => {
                let least = seen.connections;
                lab.check(check, format!("{least} or more"), seen.threads, seen.threads >= least);
            }
            By::Task => {
                lab.check(check, "1 or 2", seen.threads, (1..=2).contains(&seen.threads));
            }
        }
    }
    let columns = [
        "server",
        "idle",
        "threads",
        "KiB for each, both ends",
        "messages/s of 50",
        "switches for each",
    ];
    lab.table("A small server", &columns, rows);
    let name = "messages a second of fifty busy connections: by task ÷ by thread";
    lab.figure(name, rates[0] / rates[1], "");
    shop(&lab, params).await
}

/// What was seen of one of the small servers.
struct Seen {
    connections: usize,
    /// Threads while all were idle.
    threads: usize,
    /// KiB for each connection, of the server and of our side of it.
    memory: f64,
    /// Messages a second of the busy ones.
    rate: f64,
    /// How often a thread waited, for each message.
    switches: f64,
}

async fn echo(by: By, params: Params) -> anyhow::Result<Seen> {
    let server = Echo::start(by)?;
    let before = memory()?;
    let mut idle = Vec::new();
    while idle.len() < params.idle.into() {
        let some = (0..BUSY).map(|_| opened(server.address));
        idle.extend(try_join_all(some).await?);
    }
    let memory = memory()?.saturating_sub(before) as f64 / 1_024.0 / idle.len() as f64;
    let (threads, _) = threads_named(by.name())?;
    let connections = idle.len();
    idle.truncate(BUSY);
    let (_, before) = threads_named(by.name())?;
    let begun = Instant::now();
    try_join_all(idle.iter_mut().map(async |stream| {
        for _ in 0..params.messages {
            ping(stream).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    let messages = f64::from(params.messages) * BUSY as f64;
    let rate = messages / begun.elapsed().as_secs_f64();
    let (_, after) = threads_named(by.name())?;
    // Threads have ended since: theirs are not counted any more.
    let switches = after.saturating_sub(before) as f64 / messages;
    drop(idle);
    Ok(Seen { connections, threads, memory, rate, switches })
}

/// A connection on which one message was answered.
async fn opened(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    ping(&mut stream).await?;
    Ok(stream)
}

async fn ping(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(b"0123456789abcdef").await?;
    stream.read_exact(&mut [0; 16]).await?;
    Ok(())
}

/// The shop with idle connections, and with clients that do not finish what they send.
async fn shop(lab: &Lab, params: Params) -> anyhow::Result<()> {
    lab.progress(2, 3, "the shop");
    let fixture = Fixture::of(lab, 1).await?;
    let shop = fixture.serve().args(&["--timeout-ms", "60000"]).start().await?;
    let asked = async || {
        let mut connection = Connection::open(shop.address()).await?;
        let request = connection.get("/healthz");
        let status = connection.send(&request).await?;
        ensure!(status == 200, "/healthz: {status}");
        anyhow::Ok(connection)
    };
    let mut idle = try_join_all((0..BUSY).map(|_| asked())).await?;
    let before = shop.memory().await?;
    let first = idle.len();
    while idle.len() < usize::from(params.idle) + first {
        idle.extend(try_join_all((0..BUSY).map(|_| asked())).await?);
    }
    let grown = shop.memory().await?.saturating_sub(before) as f64 / 1_024.0;
    let each = grown / (idle.len() - first) as f64;
    let name = "shop: memory for an idle connection";
    lab.figure_with_target(name, each, "KiB", Target::AtMost(64.0));
    lab.check(format!("{name}, in KiB"), "64 or less", format!("{each:.1}"), each <= 64.0);
    let head = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                idempotency-key: a\r\ncontent-length: 30\r\n\r\n{\"prod";
    let slow = try_join_all((0..SLOW).map(async |_| {
        let mut stream = TcpStream::connect(shop.address()).await?;
        stream.write_all(head.as_bytes()).await?;
        anyhow::Ok(stream)
    }));
    let slow = slow.await?;
    let clients = Clients::of(shop.address());
    let mut read = 0;
    for n in 0..READS {
        let answer = timeout(PATIENCE, clients.get(&product(n))).await;
        read += u64::from(matches!(answer, Ok(Ok(200))));
    }
    drop(slow);
    let check = "shop: products read beside idle connections and half-sent orders";
    lab.check_eq(check, READS, read);
    Ok(())
}
