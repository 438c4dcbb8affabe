//! What does an open socket cost, and how soon does a notification arrive when there are thousands?

use std::time::Duration;

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, Target};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::fixture::{Fixture, Options};
use crate::cases::{PATIENCE, client::Client, stream::Frame};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Open sockets, each of a user of its own
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(10..=9_000))]
    sockets: u16,
    /// Clients that notify these users
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "fan-out",
        "Five thousand open sockets in one process on this machine: each gets what is its own and nothing \
         else, at tens of kibibytes for a socket",
        &["--sockets", "300"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/hub.rs",
        replace: "self.listeners().get(user).into_iter().flatten()",
        with: "self.listeners().values().flatten()",
        check: "sockets that got their user's notification",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab::open_files::allow_many();
    let fixture = Fixture::of(&lab, Options { shards: 8, backoff_ms: 200, attempts: 8 }).await?;
    let (server, client) = fixture.start(&["--role", "api", "--ping-seconds", "3600"]).await?;
    let _worker = fixture.serve().args(&["--role", "worker"]).start().await?;
    // Warm: the first of everything is not what a socket costs.
    client.notify("warm", "warm").await?;
    client.stream("warm", 0).await?.soon().await?;
    let before = server.memory().await?;

    // Many at once, or the opening would be all that takes time.
    let mut opening = JoinSet::new();
    let mut streams = Vec::with_capacity(params.sockets.into());
    for user in 0..params.sockets {
        let client = client.clone();
        opening.spawn(async move {
            anyhow::Ok((user, client.stream(&format!("user-{user}"), 0).await?))
        });
        if opening.len() >= 16 {
            streams.push(opening.join_next().await.context("one is opening")???);
            lab.progress(user.into(), params.sockets.into(), "sockets opened");
        }
    }
    for opened in opening.join_all().await {
        streams.push(opened?);
    }
    let open = sockets(&client, params.sockets.into()).await?;
    // Until their first look at the stream is over.
    sleep(Duration::from_millis(500)).await;
    let each = (server.memory().await?.saturating_sub(before)) as f64 / f64::from(params.sockets);

    lab.progress(0, 0, "notifying every user");
    let mut reading = JoinSet::new();
    for (user, mut stream) in streams {
        reading.spawn(async move {
            let frame = timeout(PATIENCE * 10, stream.next()).await;
            let at = Instant::now();
            // Anything more would be somebody else's.
            let more = timeout(Duration::from_millis(200), stream.next()).await.is_ok();
            (user, frame, at, more)
        });
    }
    let begun = Instant::now();
    let sent = notify(&client, &params).await?;
    let (mut latencies, mut own, mut more_than_one) = (Vec::new(), 0, 0);
    while let Some(read) = timeout(PATIENCE * 10, reading.join_next()).await? {
        let (user, frame, at, more) = read?;
        let frame: Frame = frame??.context("a stream was closed")?;
        own += u64::from(frame.job_id == format!("job-{user}"));
        more_than_one += u64::from(more);
        latencies.push((at - sent[usize::from(user)]).as_secs_f64() * 1e3);
    }
    let rate = f64::from(params.sockets) / begun.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let percentile = |part: usize| latencies[(latencies.len() - 1) * part / 100];
    lab.figure_with_target("memory for a socket", each / 1_024.0, "KiB", Target::AtMost(64.0));
    lab.figure("from the call to the socket, p50", percentile(50), "ms");
    lab.figure_with_target(
        "from the call to the socket, p99",
        percentile(99),
        "ms",
        Target::AtMost(1_000.0),
    );
    lab.figure("notifications a second meanwhile", rate, "");
    lab.check_eq("sockets open at once", u64::from(params.sockets), open);
    lab.check_eq("sockets that got their user's notification", u64::from(params.sockets), own);
    lab.check_eq("sockets that got anything else", 0, more_than_one);
    Ok(())
}

/// How many sockets are open: the server counts one that was just opened a moment later, so this waits for the number
/// that is expected. What it says at last, if that never comes.
async fn sockets(client: &Client, expected: u64) -> anyhow::Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let count = client.sockets().await?;
        if count == Some(expected) || Instant::now() > deadline {
            return count.context("the server is not ready");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Notifies every user once; when each was.
async fn notify(client: &Client, params: &Params) -> anyhow::Result<Vec<Instant>> {
    let mut posting = JoinSet::new();
    for number in 0..params.clients {
        let (client, sockets, clients) =
            (client.clone(), params.sockets, usize::from(params.clients));
        posting.spawn(async move {
            let mut sent = Vec::new();
            for user in (number..sockets).step_by(clients) {
                sent.push((user, Instant::now()));
                client.notify(&format!("job-{user}"), &format!("user-{user}")).await?;
            }
            anyhow::Ok(sent)
        });
    }
    let mut all = vec![Instant::now(); params.sockets.into()];
    for sent in posting.join_all().await {
        for (user, at) in sent? {
            all[usize::from(user)] = at;
        }
    }
    Ok(all)
}
