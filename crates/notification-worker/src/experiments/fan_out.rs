//! What does an open socket cost, and how soon does a notification arrive when there are thousands?

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, Target, load};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, Options};
use crate::cases::{PATIENCE, client::Client, stream::Frame};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    // With fewer, what is measured would be the memory of the process itself.
    /// Open sockets, each of a user of its own
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(300..=9_000))]
    sockets: u16,
    /// Notifications a second, to one user after the other
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u16).range(10..=5_000))]
    rate: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "fan-out",
        "Five thousand open sockets in one process on this machine: each gets what is its own and nothing \
         else, at less than 64 KiB for a socket",
        &["--sockets", "300", "--rate", "200"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/hub.rs",
        replace: "self.users().get(&user)",
        with: "self.users().get(&user).filter(|_| !user.as_str().ends_with('7'))",
        check: "sockets that got their user's notification",
    })
}

/// In KiB, for one socket. Wide, because what a process holds is more than what its sockets need.
const MOST_MEMORY: f64 = 64.0;
/// What does not come within this time after the last call is lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

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
    let (mut reading, over) = (JoinSet::new(), CancellationToken::new());
    for (user, mut stream) in streams {
        let over = over.clone();
        reading.spawn(async move {
            let frame = over.run_until_cancelled(stream.next()).await;
            let at = Instant::now();
            // Anything more would be somebody else's.
            let more = timeout(Duration::from_millis(200), stream.next()).await.is_ok();
            (user, frame, at, more)
        });
    }
    let begun = Instant::now();
    let sent = notify(&client, &params).await?;
    let (mut latencies, mut own, mut more_than_one) = (Vec::new(), 0, 0);
    let collect = async {
        while let Some(read) = reading.join_next().await {
            let (user, frame, at, more) = read?;
            let frame: Option<Frame> = frame.transpose()?.flatten();
            let right = frame.is_some_and(|frame| frame.job_id == format!("job-{user}"));
            own += u64::from(right);
            more_than_one += u64::from(more);
            let latency = (at.into_std() - sent[usize::from(user)]).as_secs_f64() * 1e3;
            // Who got nothing, or something else, waited for ever.
            latencies.push(if right { latency } else { f64::INFINITY });
        }
        anyhow::Ok(())
    };
    let give_up = async {
        sleep(LOST_AFTER).await;
        over.cancel();
        // Those who waited in vain say so, and then all is collected.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        collected = collect => collected?,
        () = give_up => {}
    }
    let rate = f64::from(params.sockets) / begun.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    let percentile = |part: usize| latencies[(latencies.len() - 1) * part / 100];
    let each = each / 1_024.0;
    lab.figure_with_target("memory for a socket", each, "KiB", Target::AtMost(MOST_MEMORY));
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
    lab.check(
        "memory for a socket is bounded",
        format!("at most {MOST_MEMORY} KiB"),
        format!("{each:.1} KiB"),
        each <= MOST_MEMORY,
    );
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

/// Notifies every user once, at a steady rate, whether or not the service keeps up; when each was due.
async fn notify(client: &Client, params: &Params) -> anyhow::Result<Vec<std::time::Instant>> {
    let due = Mutex::new(Vec::new());
    let rate = f64::from(params.rate);
    let time = Duration::from_secs_f64(f64::from(params.sockets) / rate);
    let outcome = load::open(rate, time, 1_000, |arrival| {
        due.lock().unwrap_or_else(PoisonError::into_inner).push(arrival.due);
        let (client, user) = (client.clone(), arrival.number);
        async move {
            client.notify(&format!("job-{user}"), &format!("user-{user}")).await?;
            Ok(())
        }
    });
    let outcome = outcome.await?;
    if let Some(error) = outcome.first_error {
        anyhow::bail!("{} calls were not accepted: {error}", outcome.failed);
    }
    Ok(due.into_inner().unwrap_or_else(PoisonError::into_inner))
}
