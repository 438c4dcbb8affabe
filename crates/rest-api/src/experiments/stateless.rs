//! Does a client notice that a process was killed? Not if no process remembers anything about it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context, ensure};
use lab::{
    Experiment, Lab, Sabotage,
    harness::eventually,
    serve::{Here, here},
};
use serde_json::json;
use tokio::task::JoinSet;

use super::{compare::sessions, fixture::Fixture, wire::Wire};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Kills, each of the next of three processes
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(3..=1_000))]
    kills: u32,
    /// Clients that work all the time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "stateless",
        "Three processes behind a round-robin proxy, one of them always being killed: clients notice nothing but a retry. \
         With sessions in memory, logins are lost",
        &["--kills", "3", "--clients", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "let (user, version) = (store.find(id).await?, negotiate(&headers)?);",
        with: r#"static SEEN: std::sync::Mutex<std::collections::BTreeMap<Uuid, User>> =
        std::sync::Mutex::new(std::collections::BTreeMap::new());
    let seen = SEEN.lock().ok().and_then(|seen| seen.get(&id).cloned());
    let user = match seen {
        Some(user) => user,
        None => store.find(id).await?,
    };
    if let Ok(mut seen) = SEEN.lock() {
        seen.insert(id, user.clone());
    }
    let version = negotiate(&headers)?;"#,
        check: "wrong answers, whichever process gave them",
    })
}

/// What the clients have counted.
#[derive(Default)]
struct Counts {
    done: AtomicU64,
    retries: AtomicU64,
    wrong: AtomicU64,
    over: AtomicBool,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(fixture.serve().start().await?);
    }
    let wire = Wire::to(children.iter().map(|child| child.address().to_owned()).collect()).await?;
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for _ in 0..params.clients {
        let (client, counts) = (Client::at(&wire.url)?, Arc::clone(&counts));
        clients.spawn(async move {
            while !counts.over.load(Ordering::Relaxed) {
                one(&client, &counts).await?;
            }
            anyhow::Ok(())
        });
    }
    for kill in 0..params.kills {
        lab.progress(kill.into(), params.kills.into(), "kills of one of three processes");
        // Not before the clients have worked with the three again.
        let done = counts.done.load(Ordering::Relaxed);
        eventually("the clients go on", async || {
            let moved = counts.done.load(Ordering::Relaxed) >= done + 3;
            let stuck = counts.wrong.load(Ordering::Relaxed) > 0;
            Ok((moved || stuck || clients.is_empty()).then_some(()))
        })
        .await?;
        let victim = &mut children[kill as usize % 3];
        victim.kill().await?;
        victim.restart().await?;
    }
    counts.over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.context("a client panicked")??;
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    lab.figure("users created, read, changed and deleted", of(&counts.done) as f64, "");
    lab.figure("requests that were sent again", of(&counts.retries) as f64, "");
    lab.check(
        "and some had to be sent again",
        "1 or more",
        of(&counts.retries),
        of(&counts.retries) > 0,
    );
    lab.check_eq("wrong answers, whichever process gave them", 0, of(&counts.wrong));
    lab.check_eq(
        "users that are left, though their client deleted them",
        0,
        fixture.count("users").await?,
    );
    sessions_in_memory(&lab, params.kills).await
}

/// The life of one user. Each request goes to another process, and may be sent again: PUT under the client's own id, and
/// DELETE, may be.
async fn one(client: &Client, counts: &Counts) -> anyhow::Result<()> {
    let path = format!("/users/{}", uuid::Uuid::new_v4());
    let (first, mut second) = (client.user("First"), client.user("Second"));
    second["tags"] = json!(["changed"]);
    let put = |user: &serde_json::Value, condition: &'static str| {
        client.request(reqwest::Method::PUT, &path).json(user).header(condition, "*")
    };
    let read = || client.request(reqwest::Method::GET, &path);
    let delete = || client.request(reqwest::Method::DELETE, &path);
    // Of a repeat, 412 says that the first attempt has created it.
    let steps = [
        (patient(|| put(&first, "if-none-match"), client, counts).await?, &[201, 412][..]),
        (patient(read, client, counts).await?, &[200]),
        (patient(|| put(&second, "if-match"), client, counts).await?, &[200]),
        (patient(delete, client, counts).await?, &[204]),
        (patient(read, client, counts).await?, &[404]),
    ];
    let wrong = steps.iter().filter(|(status, right)| !right.contains(status)).count();
    counts.wrong.fetch_add(wrong as u64, Ordering::Relaxed);
    // What a client that is refused has made stays behind otherwise, and is counted twice.
    counts.done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Sends it on a new connection each time, until there is an answer.
async fn patient(
    request: impl Fn() -> reqwest::RequestBuilder,
    client: &Client,
    counts: &Counts,
) -> anyhow::Result<u16> {
    for _ in 0..1_000 {
        match client.target.send(request().header("connection", "close")).await {
            Ok(response) if response.status() != 503 => return Ok(response.status().as_u16()),
            _ => counts.retries.fetch_add(1, Ordering::Relaxed),
        };
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    anyhow::bail!("a thousand attempts, and no answer")
}

/// The same with a server that remembers who has logged in. Dropping its router is what a kill does to its memory.
async fn sessions_in_memory(lab: &Lab, restarts: u32) -> anyhow::Result<()> {
    let mut servers: Vec<Here> = Vec::new();
    for _ in 0..3 {
        servers.push(here(sessions::router()).await?);
    }
    let (mut lost, mut elsewhere, mut asked) = (0, 0, 0);
    for restart in 0..restarts as usize {
        let mut tokens = HashMap::new();
        for (at, server) in servers.iter().enumerate() {
            tokens.insert(at, sessions::log_in(&server.host).await?);
        }
        // The round robin takes the next server for the next request.
        for (at, token) in &tokens {
            let next = &servers[(at + 1) % 3];
            elsewhere += u32::from(!sessions::knows(&next.host, token).await?);
        }
        servers[restart % 3] = here(sessions::router()).await?;
        for (at, token) in &tokens {
            asked += 1;
            lost += u32::from(!sessions::knows(&servers[*at].host, token).await?);
        }
    }
    ensure!(asked > 0, "nobody was asked");
    lab.figure(
        "sessions in memory: logins that the next process does not know",
        f64::from(elsewhere),
        "",
    );
    lab.check("sessions in memory: logins lost with their process", "1 or more", lost, lost > 0);
    let others = asked - lost;
    lab.check("and those of the other processes are not", "1 or more", others, others > 0);
    Ok(())
}
