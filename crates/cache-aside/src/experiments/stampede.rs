//! A thousand readers of one cold key, in three processes: how many queries is that?

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    compare::textbook::Textbook,
    fixture::{self, Fixture, NO_TIMEOUTS, believing},
};
use crate::cases::client::{Client, name};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Readers at once, in all processes together
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(10..=5_000))]
    readers: u16,
    /// Processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=8))]
    processes: u16,
    /// Cold keys, one after another
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "stampede",
        "A thousand readers of one cold key, in three processes: naive cache-aside makes a thousand \
         queries of it, single flight one in each process, and the lease one in all, if nobody loses patience",
        &["--readers", "150", "--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/link.rs",
        replace: r#"add.arg("NX").arg("GET").arg("PX")"#,
        with: r#"add.arg("GET").arg("PX")"#,
        check: "lease: queries, 1 cold keys",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab::open_files::allow_many();
    let (rounds, readers) = (u64::from(params.rounds), u64::from(params.readers));
    let processes = u64::from(params.processes);
    let mut rows = Vec::new();
    let modes = [("naive", readers), ("single-flight", processes), ("lease", 1)];
    for (done, (mode, each)) in (0..).zip(modes) {
        lab.progress(done, 3, format!("{readers} readers at once, {mode}"));
        let seen = stampede(&params, &lab, mode).await?;
        lab.check_eq(format!("{mode}: readers that got the user"), rounds * readers, seen.served);
        // We compare with the first two, which have room for chance: a reader may be held up between its look and its
        // load. Only the lease is exact.
        let (least, most) = match mode {
            "naive" => (rounds * each * 9 / 10, rounds * each),
            "single-flight" => (rounds * each, rounds * (each + readers / 10)),
            _ => (rounds * each, rounds * each),
        };
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let held = (least..=most).contains(&seen.queries);
        lab.check(format!("{mode}: queries, {rounds} cold keys"), expected, seen.queries, held);
        let cells = [rounds * readers, seen.queries, seen.queries / rounds];
        rows.push([vec![mode.to_owned()], cells.map(|cell| cell.to_string()).to_vec()].concat());
    }
    let columns = ["against stampedes", "readers", "queries", "for each cold key"];
    lab.table("What PostgreSQL has counted", &columns, rows);
    Ok(())
}

struct Seen {
    served: u64,
    queries: u64,
}

/// A reader of one process.
#[derive(Clone)]
enum Reader {
    Textbook(Textbook),
    Program(Client),
}

impl Reader {
    async fn read(&self, n: u16) -> anyhow::Result<String> {
        match self {
            Self::Textbook(textbook) => {
                textbook.get(fixture::id(n.into())?).await?.context("nobody")
            }
            Self::Program(client) => name(client.read(n.into()).await?).await,
        }
    }
}

/// Each round: the database is out of reach until every reader has looked into Redis in vain.
async fn stampede(params: &Params, lab: &Lab, mode: &str) -> anyhow::Result<Seen> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(params.rounds.into()).await?;
    let before = fixture.queries().await?;
    let to_database = Proxy::to_url(fixture.database.url()).await?;
    let to_redis = Proxy::to_url(&fixture.redis_url).await?;
    let database_url = to_database.url(fixture.database.url())?;
    let redis_url = to_redis.url(&fixture.redis_url)?;
    let (mut children, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..params.processes {
        if mode == "lease" {
            let serve = fixture.serve_through(&redis_url).env("DATABASE_URL", &database_url);
            let child = serve.args(&NO_TIMEOUTS).start().await?;
            readers.push(Reader::Program(believing(&child).await?));
            children.push(child);
        } else {
            let (prefix, single) = (&fixture.key_prefix, mode == "single-flight");
            let textbook = Textbook::new(&database_url, &redis_url, prefix, single).await?;
            readers.push(Reader::Textbook(textbook));
        }
    }
    let mut served = 0;
    for round in 1..=params.rounds {
        let key = match &readers[0] {
            Reader::Textbook(textbook) => textbook.key(fixture::id(round.into())?),
            Reader::Program(_) => fixture.key(round).await?,
        };
        // What each reader's `GET` takes on the wire.
        let look = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).len() as u64;
        let looked = to_redis.bytes().0 + look * u64::from(params.readers);
        to_database.set(Fault::BlackHole);
        let mut crowd = JoinSet::new();
        let all = Arc::new(readers.clone());
        for reader in 0..usize::from(params.readers) {
            let all = Arc::clone(&all);
            crowd.spawn(async move { all[reader % all.len()].read(round).await });
        }
        let all_looked = async {
            while to_redis.bytes().0 < looked {
                sleep(Duration::from_millis(2)).await;
            }
        };
        // No longer than this, because a program with shorter keys never sends as much. It is judged by its queries all
        // the same.
        let _ = timeout(Duration::from_secs(5), all_looked).await;
        to_database.heal();
        for seen in crowd.join_all().await {
            served += u64::from(seen.is_ok_and(|name| name == format!("user {round}")));
        }
    }
    for child in &mut children {
        child.stop().await?;
    }
    drop(readers);
    Ok(Seen { served, queries: fixture.queries().await? - before })
}
