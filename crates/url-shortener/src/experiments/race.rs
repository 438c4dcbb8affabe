//! Who gets an alias that a hundred clients want at the same moment?

use std::sync::Arc;

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

use super::fixture::{Fixture, UNLIMITED};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that want the same alias at the same moment
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=1000))]
    clients: u16,
    /// Aliases to fight for, one after another
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
}

/// A service that says 503 more often than this is away, and not only busy.
const MOST_RETRIES: u32 = 20;

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "race",
        "A hundred clients that want one alias at one moment: one 201, ninety-nine 409",
        &["--rounds", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/create.rs",
        replace: "Some(_) if alias.is_some() => return Err(Error::AliasTaken)",
        with: "Some(owner) if alias.is_some() => return Ok(Created::New(owner, token))",
        check: "each alias was given out once: 201s",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // Two processes on one database: a lock inside a process would not help, the unique index does.
    let fixture = Fixture::of(&lab).await?;
    // One after the other: the whiteboard version makes its table when it starts.
    let (_one, client) = fixture.start(&UNLIMITED).await?;
    let (_two, other) = fixture.start(&UNLIMITED).await?;
    let processes = [client, other];
    let (mut winners, mut losers, mut others) = (0, 0, Vec::new());
    let (mut retries, mut mistaken) = (0, 0);
    for round in 0..params.rounds {
        lab.progress(round, params.rounds, "aliases fought for");
        let alias = format!("alias-{round}");
        let contest = contest(&processes, params.clients.into(), &alias).await?;
        // A client that got a 503 may own the alias all the same. Then its own next attempt got the 409.
        let owner = processes[0].destination(&alias).await?;
        let unsure = contest.iter().find(|it| it.retries > 0 && owner == url(it.client));
        let unsure = unsure.map(|it| it.client);
        let mut won = None;
        for Contender { client, status, retries: tried } in contest {
            retries += tried;
            match status {
                201 => {
                    winners += 1;
                    won = Some(client);
                }
                409 if unsure == Some(client) => {
                    winners += 1;
                    won = Some(client);
                }
                409 => losers += 1,
                other => others.push(other),
            }
        }
        let winner = won.context("nobody got the alias")?;
        for process in &processes {
            mistaken += u64::from(process.destination(&alias).await? != url(winner));
        }
    }
    let clients = u64::from(params.clients);
    lab.figure("503s of a busy machine, each of which was tried again", f64::from(retries), "");
    lab.check_eq("each alias was given out once: 201s", params.rounds, winners);
    lab.check_eq("all others were told so: 409s", params.rounds * (clients - 1), losers);
    lab.check(
        "nothing else was answered",
        "no other status",
        format!("{others:?}"),
        others.is_empty(),
    );
    lab.check_eq(
        "redirects that do not lead to the winner's URL, asked of both processes",
        0,
        mistaken,
    );
    Ok(())
}

/// What one client was told in the end.
struct Contender {
    client: usize,
    status: u16,
    /// How often it was told to try again.
    retries: u32,
}

/// Lets all clients loose at once, half on each process. A client tries again after a 503.
async fn contest(
    processes: &[Client; 2],
    clients: usize,
    alias: &str,
) -> anyhow::Result<Vec<Contender>> {
    let start = Arc::new(Barrier::new(clients));
    let mut contest = JoinSet::new();
    for n in 0..clients {
        let (client, start) = (processes[n % 2].clone(), start.clone());
        let link = json!({ "url": url(n), "alias": alias });
        contest.spawn(async move {
            start.wait().await;
            let mut retries = 0;
            loop {
                let status = client.create_once(&link).await?.status().as_u16();
                if status != 503 || retries == MOST_RETRIES {
                    return Ok(Contender { client: n, status, retries });
                }
                retries += 1;
            }
        });
    }
    contest.join_all().await.into_iter().collect()
}

fn url(client: usize) -> String {
    format!("https://example.com/{client}")
}
