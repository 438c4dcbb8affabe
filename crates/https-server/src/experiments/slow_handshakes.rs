//! What can somebody do who never finishes a handshake?

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use lab::{Experiment, Lab, Sabotage};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::fixture::{Fixture, HOST};
use crate::cases::{
    client::{BOTH, connect, exchange, get},
    hello::Hello,
};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Connections that stop half-way
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(50..=10_000))]
    pub stalled: u32,
    /// How long a handshake may take, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub patience: u32,
    /// Other clients that want a page meanwhile
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub others: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "slow-handshakes",
        "Two thousand connections stop half-way through the handshake: the server still serves other clients, its memory is \
         bounded, and after the time limit they are gone",
        &["--stalled", "300", "--patience", "1", "--others", "10"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/listener.rs",
        replace: "timeout(this.patience, this.shake_hands(stream))",
        with: "timeout(Duration::MAX, this.shake_hands(stream))",
        check: "stalled connections that the server ended in time",
    })
}

/// More than this for each is too much: two buffers of a record, and then some.
const MOST_FOR_EACH: f64 = 64.0;
/// How long a connection may take to be accepted.
const ACCEPTED: Duration = Duration::from_secs(3);
/// How long another client waits for its page. A busy machine is slow.
const SERVED: Duration = Duration::from_secs(10);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::start(&["--patience", &params.patience.to_string()]).await?;
    lab::open_files::allow_many();
    let hello = Hello::default().bytes();
    // The code that shakes hands also answers a client that speaks plain HTTP to this port.
    let mut lost = TcpStream::connect(fixture.https).await?;
    let told = timeout(SERVED, exchange(&mut lost, &get(HOST, "/", &[]))).await;
    let told = told.ok().and_then(Result::ok).map_or(0, |answer| answer.status);
    lab.check_eq("what a client that speaks plain HTTP is told", 400, told);
    // Warm, so that what the first client costs is not counted.
    serve_others(&fixture, 10).await;
    let before = fixture.child.memory().await?;
    let (mut stalled, mut refused) = (Vec::new(), 0);
    let begun = Instant::now();
    while stalled.len() + refused < params.stalled as usize {
        lab.progress(stalled.len() as u64, params.stalled.into(), "stalled connections");
        let batch = (0..50.min(params.stalled as usize - stalled.len() - refused)).map(|n| {
            // A third says nothing, a third stops within its first message, a third waits for ever after it.
            let sent = [0, hello.len() / 2, hello.len()][n % 3];
            stall(fixture.https, &hello[..sent])
        });
        for stream in join_all(batch).await {
            match stream {
                Ok(stream) => stalled.push((Instant::now(), stream)),
                Err(_) => refused += 1,
            }
        }
    }
    let at_peak = fixture.child.memory().await?;
    let others = serve_others(&fixture, params.others).await;
    let opened = begun.elapsed();
    let kib = |bytes: u64| bytes as f64 / 1_024.0;
    let each = kib(at_peak.saturating_sub(before)) / f64::from(params.stalled);
    lab.figure("connections that stopped half-way", stalled.len() as f64, "connections");
    lab.figure("opening them and serving the others took", opened.as_secs_f64(), "s");
    let pages = others.iter().filter_map(|page| page.as_ref().ok());
    let slowest = pages.max().copied().unwrap_or_default();
    lab.figure("the slowest page of the others", slowest.as_secs_f64() * 1_000.0, "ms");
    lab.figure("memory for each stalled connection", each, "KiB");
    lab.check_eq("connections that were not accepted", 0, refused);
    let missed = others.iter().filter_map(|page| page.as_ref().err());
    let missed: Vec<_> = missed.map(|error| format!("{error:#}")).collect();
    let served = params.others as usize - missed.len();
    lab.check(
        "other clients that got their page meanwhile",
        params.others,
        if missed.is_empty() {
            served.to_string()
        } else {
            format!("{served} ({})", missed.join(", "))
        },
        missed.is_empty(),
    );
    lab.check(
        "memory for each stalled connection, in KiB",
        "at most 64",
        format!("{each:.1}"),
        each <= MOST_FOR_EACH,
    );
    let limit = Duration::from_secs(u64::from(params.patience) + 3);
    let total = stalled.len();
    let ends = stalled.into_iter().map(async |(since, mut stream)| {
        let left = limit.saturating_sub(since.elapsed()).max(Duration::from_millis(200));
        timeout(left, stream.read_to_end(&mut Vec::new())).await.is_ok()
    });
    let ended = join_all(ends).await.into_iter().filter(|ended| *ended).count();
    lab.check_eq("stalled connections that the server ended in time", total, ended);
    lab.figure(
        "memory afterwards, more than before",
        kib(fixture.child.memory().await?.saturating_sub(before)) / 1_024.0,
        "MiB",
    );
    Ok(())
}

async fn stall(server: SocketAddr, sent: &[u8]) -> anyhow::Result<TcpStream> {
    let mut stream = timeout(ACCEPTED, TcpStream::connect(server)).await??;
    stream.write_all(sent).await?;
    Ok(stream)
}

/// How long each of so many clients waited for a page, or why it got none.
async fn serve_others(fixture: &Fixture, clients: u32) -> Vec<anyhow::Result<Duration>> {
    let wait = async || {
        let begun = Instant::now();
        let client = fixture.shared_client(BOTH)?;
        let page = async {
            let stream = connect(&client, fixture.https, HOST).await;
            let mut stream = stream.context("while it shook hands")?;
            anyhow::Ok(exchange(&mut stream, &get(HOST, "/", &[])).await?)
        };
        let page = timeout(SERVED, page).await.context("no page in time")?;
        let status = page.with_context(|| format!("after {:?}", begun.elapsed()))?.status;
        ensure!(status == 200, "{status}");
        Ok(begun.elapsed())
    };
    join_all((0..clients).map(|_| wait())).await
}
