//! A thousand readers of one cold key, in three processes: how many queries is that?

use std::time::Duration;

use anyhow::Context;
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy},
};
use tokio::{task::JoinSet, time::timeout};

use super::fixture::{Fixture, NO_TIMEOUTS, believing};
use crate::cases::client::name;

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
         queries of it, single flight one in each process, the lease one in all",
        &["--readers", "150", "--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/link.rs",
        replace: r#".arg("NX").arg("GET")"#,
        with: r#".arg("GET")"#,
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
        // The first two are what we compare with, so chance has room: a reader may be held up between its look and its
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

/// Each round: the database is out of reach until every reader has looked into Redis in vain.
async fn stampede(params: &Params, lab: &Lab, mode: &str) -> anyhow::Result<Seen> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(params.rounds.into()).await?;
    let before = fixture.queries().await?;
    let to_database = Proxy::to_url(fixture.database.url()).await?;
    let to_redis = Proxy::to_url(&fixture.redis_url).await?;
    let (mut children, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..params.processes {
        let serve = fixture
            .serve_through(&to_redis.url(&fixture.redis_url)?)
            .env("DATABASE_URL", to_database.url(fixture.database.url())?)
            .args(&["--stampede", mode])
            .args(&NO_TIMEOUTS);
        let child = serve.start().await?;
        clients.push(believing(&child).await?);
        children.push(child);
    }
    let mut served = 0;
    for round in 1..=params.rounds {
        let id = i64::from(round);
        // What each reader's `GET` takes on the wire.
        let key = fixture.key(id);
        let look = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).len() as u64;
        let looked = to_redis.bytes().0 + look * u64::from(params.readers);
        to_database.set(Fault::BlackHole);
        let mut crowd = JoinSet::new();
        for reader in 0..usize::from(params.readers) {
            let client = clients[reader % clients.len()].clone();
            crowd.spawn(async move { name(client.read(id).await?).await });
        }
        let all_looked = async {
            while to_redis.bytes().0 < looked {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        // Half of what a call of the database may take: the other half is for those who queue at the gate.
        timeout(Duration::from_secs(30), all_looked).await.context("not all readers looked")?;
        to_database.heal();
        for seen in crowd.join_all().await {
            served += u64::from(seen.is_ok_and(|name| name == format!("user {id}")));
        }
    }
    for child in &mut children {
        child.stop().await?;
    }
    Ok(Seen { served, queries: fixture.queries().await? - before })
}
