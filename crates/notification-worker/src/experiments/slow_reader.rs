//! What does a client cost that opens a stream and does not read it?

use std::{collections::HashSet, time::Duration};

use lab::{Experiment, Lab, Sabotage};
use serde_json::json;
use tokio::{
    net::TcpSocket,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    fixture::{Fixture, Options},
    seen::Seen,
};
use crate::cases::{PATIENCE, client::Client, stream::Stream};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that do not read, all of one user
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(8..=500))]
    clients: u16,
    /// Notifications of 3,000 bytes that this user gets: more than the 4 MB that a kernel holds for one socket
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u16).range(1_800..=20_000))]
    notifications: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "slow-reader",
        "A client that does not read is dropped, with bounded memory, and gets what it missed when it returns",
        &["--clients", "16", "--notifications", "1800"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/socket.rs",
        replace: "const PAGE: i64 = 64;",
        with: "const PAGE: i64 = 1_000_000;",
        check: "memory stays bounded",
    })
}

/// What a client gets at a time, from a kernel that is told to take little.
const RECEIVE_BUFFER: u32 = 4_096;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, Options { shards: 2, backoff_ms: 200, attempts: 8 }).await?;
    let options = ["--role", "api", "--ping-seconds", "3"];
    let (server, client) = fixture.start(&options).await?;
    let _worker = fixture.serve().args(&["--role", "worker"]).start().await?;
    // All of it waits when they come: whoever keeps what a client does not take, keeps it at once.
    for posted in post(&client, params.notifications).join_all().await {
        posted?;
    }
    // One user has one lane, so this takes a busy machine long.
    let (wanted, deadline) = (usize::from(params.notifications), Instant::now() + PATIENCE * 4);
    while stream_of(&fixture, "slow").await?.len() < wanted {
        anyhow::ensure!(Instant::now() < deadline, "not all of them were delivered");
        sleep(Duration::from_millis(250)).await;
    }
    let before = server.memory().await?;
    let mut slow = Vec::new();
    for _ in 0..params.clients {
        slow.push(slow_stream(&client).await?);
    }
    // Somebody who reads, on the same process; and from now on, or it would be dropped like the others.
    let mut reader = client.stream("reader", 0).await?;

    let (mut most, mut delays, mut n) = (before, Vec::new(), 0_u64);
    let deadline = Instant::now() + PATIENCE * 2;
    // Until every slow one is dropped, and somebody else is served meanwhile.
    let mut left = u64::from(params.clients) + 1;
    while left > 1 && Instant::now() < deadline {
        let begun = Instant::now();
        client.notify(&format!("live-{n}"), "reader").await?;
        let frame = reader.soon().await?;
        anyhow::ensure!(frame.job_id == format!("live-{n}"), "another's: {frame:?}");
        delays.push(begun.elapsed().as_secs_f64() * 1e3);
        most = most.max(server.memory().await?);
        n += 1;
        lab.progress(n, 0, "nobody reads");
        sleep(Duration::from_millis(50)).await;
        // As many as before, while the server is not ready to say.
        left = client.sockets().await?.unwrap_or(left);
    }

    // One of them returns, with the last number that it can have read.
    let mut seen = Seen::default();
    let mut first = slow.swap_remove(0);
    while let Ok(Ok(Some(frame))) = tokio::time::timeout(Duration::from_secs(2), first.next()).await
    {
        seen.frames.push(frame);
    }
    let read_before = seen.frames.len();
    seen.watch(&client, "slow", wanted, Instant::now() + PATIENCE).await;
    let jobs: HashSet<_> = seen.frames.iter().map(|frame| frame.job_id.as_str()).collect();
    let stream = stream_of(&fixture, "slow").await?;
    let in_order = seen.frames.iter().zip(&stream).filter(|(it, job)| it.job_id == **job).count();

    let missed = wanted.saturating_sub(read_before);
    let unread = (missed * 3_000 * usize::from(params.clients)) as f64 / 1e6;
    let grown = (most - before) as f64 / 1e6;
    lab.figure("kept back from those who did not read, in all", unread, "MB");
    lab.figure("memory that the process grew by, at most", grown, "MB");
    lab.figure("to the one who reads, median", lab::load::median(delays.clone()), "ms");
    lab.check_eq("streams that are open when all others were dropped", 1, left);
    lab.check("they missed something", "1 or more", missed, missed >= 1);
    lab.check(
        "memory stays bounded",
        format!("less than half of what was kept back: {:.1} MB", unread / 2.0),
        format!("{grown:.1} MB"),
        grown < unread / 2.0,
    );
    lab.check_eq("of what was sent, what the one that returned has seen", wanted, jobs.len());
    lab.check_eq("frames that it saw, each once", wanted, seen.frames.len());
    lab.check_eq("of them in their order", wanted, in_order);
    Ok(())
}

/// The jobs of a user in the order of the stream. On a busy machine this need not be the order of their numbers: a job
/// that had to be tried again stands behind others with higher numbers.
async fn stream_of(fixture: &Fixture, user: &str) -> anyhow::Result<Vec<String>> {
    let pool = fixture.database.pool().await?;
    let jobs = sqlx::query_scalar(
        r#"
        select job_id
        from notifications
        where user_id = $1
            and position is not null
        order by position
        "#,
    )
    .bind(user)
    .fetch_all(&pool)
    .await?;
    pool.close().await;
    Ok(jobs)
}

/// A stream whose client reads only the answer to its upgrade.
async fn slow_stream(client: &Client) -> anyhow::Result<Stream> {
    let host: std::net::SocketAddr = client.target.url().trim_start_matches("http://").parse()?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    let tcp = socket.connect(host).await?;
    let query = format!("ticket={}&after=0", client.ticket("slow").await?);
    Stream::over(tcp, &client.target, "slow", &query).await
}

/// Eight clients, who tell one user the same long story.
fn post(client: &Client, count: u16) -> JoinSet<anyhow::Result<()>> {
    let mut posting = JoinSet::new();
    for number in 0..8 {
        let client = client.clone();
        posting.spawn(async move {
            for n in (number..count).step_by(8) {
                let body = json!({
                    "job_id": format!("long-{n}"),
                    "user_id": "slow",
                    "channel": "websocket",
                    "title": "A long story",
                    "body": "x".repeat(3_000),
                });
                client.accepted(&body).await?;
            }
            Ok(())
        });
    }
    posting
}
