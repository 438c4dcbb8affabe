//! Who gets an alias that a hundred clients want at the same moment?

use std::sync::Arc;

use anyhow::Context;
use lab::{Experiment, Lab};
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

use super::client::Api;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that want the same alias at the same moment
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=1000))]
    clients: u16,
    /// Aliases to fight for, one after another
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
}

/// A service that is away for so long is no busy machine.
const MOST_RETRIES: u32 = 20;

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "race",
        "A hundred clients that want one alias at one moment: one 201, ninety-nine 409",
        &["--rounds", "5"],
        run,
    )
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // Two processes on one database: a lock inside a process would not help, the unique index does.
    let database = lab.database().await?;
    let serve = || lab.serve().database(&database).args(&["--creates-per-second", "1000000"]);
    let (one, two) = tokio::try_join!(serve().start(), serve().start())?;
    let apis = [Api::of(&one)?, Api::of(&two)?];
    let (mut winners, mut losers, mut others) = (0, 0, Vec::new());
    let (mut retries, mut mistaken) = (0, 0);
    for round in 0..params.rounds {
        lab.progress(round, params.rounds, "aliases fought for");
        let alias = format!("alias-{round}");
        let contest = contest(&apis, params.clients.into(), &alias).await?;
        // One who was told 503 at first may have been given it all the same, and lost to himself.
        let (_, owner) = apis[0].follow(&alias).await?;
        let unsure = contest.iter().find(|it| it.retries > 0 && owner == Some(url(it.client)));
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
        for api in &apis {
            let (_, location) = api.follow(&alias).await?;
            mistaken += u64::from(location != Some(url(winner)));
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

/// What one of them was told in the end.
struct Contender {
    client: usize,
    status: u16,
    /// How often it was told to try again.
    retries: u32,
}

/// Lets all clients loose at once, half on each process. A 503 is tried again, as it asks for.
async fn contest(apis: &[Api; 2], clients: usize, alias: &str) -> anyhow::Result<Vec<Contender>> {
    let start = Arc::new(Barrier::new(clients));
    let mut contest = JoinSet::new();
    for client in 0..clients {
        let (api, start) = (apis[client % 2].clone(), start.clone());
        let link = json!({ "url": url(client), "alias": alias });
        contest.spawn(async move {
            start.wait().await;
            let mut retries = 0;
            loop {
                let status = api.post(&link).await?.status().as_u16();
                if status != 503 || retries == MOST_RETRIES {
                    return Ok(Contender { client, status, retries });
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
