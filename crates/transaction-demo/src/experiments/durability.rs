//! What is left when the database server itself is killed?

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::{Experiment, Lab, Need, Sabotage, Service, Target, stack::own::OwnServer};
use sqlx::{AssertSqlSafe, Executor};

use super::{
    books::Books,
    fixture::Fixture,
    paying::{ENOUGH, Paying, kept},
};
use crate::cases::client::{Client, Payment};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that the server is killed, with `synchronous_commit` on, and as often with it off
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    kills: u64,
    /// Seconds of load before each kill
    #[arg(long, default_value_t = 0.7, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Clients that pay
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "durability",
        "The database server itself is killed with SIGKILL under load: every acknowledged transfer is there \
         afterwards; with synchronous_commit = off some are not",
        &["--kills", "1", "--seconds", "0.3", "--clients", "8"],
        run,
    )
    .needs(&[Need::Own(Service::Postgres)])
    .sabotage(Sabotage {
        file: "src/database.rs",
        replace: r#""begin isolation level read committed""#,
        with: r#""begin isolation level read committed; set local synchronous_commit = off""#,
        check: "synchronous_commit = on: acknowledged transfers that are lost",
    })
}

const ACCOUNTS: usize = 50;
const START: i64 = 100_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut server = lab.own_server(Service::Postgres).await?;
    let fixture = Fixture::on(&server.url()?).await?;
    let (mut rows, mut rates, mut done) = (Vec::new(), Vec::new(), 0);
    for setting in ["on", "off"] {
        set_synchronous_commit(&fixture, setting).await?;
        let (_bank, client) = fixture.start(&[]).await?;
        let accounts = client.open_all(ACCOUNTS, START).await?;
        let mut all = Kill::default();
        let mut kills = 0;
        // A kill just after PostgreSQL has flushed finds nothing to lose. That all kills of a run do is rare;
        // then there are some more.
        while kills < params.kills
            || (setting == "off" && all.lost == 0 && kills < params.kills + 5)
        {
            lab.progress(done, 2 * params.kills, format!("kills, synchronous_commit = {setting}"));
            (kills, done) = (kills + 1, done + 1);
            let kill = once(&params, &mut server, &fixture, &client, &accounts, done).await?;
            rows.push(kill.row(setting));
            all.acknowledged += kill.acknowledged;
            all.under_load += kill.under_load;
            all.lost += kill.lost;
            all.oldest_lost = all.oldest_lost.max(kill.oldest_lost);
            all.wrong_books += kill.wrong_books;
            all.works_again += kill.works_again;
        }
        judge(&lab, setting, kills, &all);
        rates.push(all.acknowledged as f64 / all.under_load.as_secs_f64());
    }
    if let [on, off] = rates[..] {
        lab.figure("acknowledged with synchronous_commit = off ÷ with on", off / on, "");
    }
    let columns = [
        "synchronous_commit",
        "acknowledged before the kill",
        "lost",
        "oldest lost (ms before the kill)",
        "until it answers again (ms)",
    ];
    lab.table("Each kill of the server", &columns, rows);
    lab.text(
        "SIGKILL cannot show the flush: it loses what is in the memory of processes. What PostgreSQL has written and \
         not flushed survives in the operating system, and would not survive a power cut.",
    );
    // Its lock is on a connection to the server that we killed; the server goes with the experiment.
    drop(fixture);
    Ok(())
}

fn judge(lab: &Lab, setting: &str, kills: u64, all: &Kill) {
    let acknowledged = all.acknowledged;
    let name = format!("synchronous_commit = {setting}: the load was real");
    let enough = kills * ENOUGH as u64;
    lab.check(name, format!("{enough} or more"), acknowledged, acknowledged >= enough);
    let name = format!("synchronous_commit = {setting}: acknowledged transfers that are lost");
    if setting == "on" {
        lab.check_eq(name, 0, all.lost);
    } else {
        lab.check(name, "1 or more", all.lost, all.lost > 0);
        let oldest = all.oldest_lost.as_secs_f64() * 1e3;
        // PostgreSQL's documentation, 30.4: at most three times wal_writer_delay, which is 200 ms.
        let figure = "synchronous_commit = off: the oldest that was lost, before the kill";
        lab.figure_with_target(figure, oldest, "ms", Target::AtMost(600.0));
    }
    let rate = acknowledged as f64 / all.under_load.as_secs_f64();
    let name = format!("synchronous_commit = {setting}: acknowledged, for each second of load");
    lab.figure(name, rate, "transfers/s");
    let name = format!("synchronous_commit = {setting}: lost of those acknowledged");
    lab.figure(name, all.lost as f64, "");
    lab.check_eq(
        format!("synchronous_commit = {setting}: kills after which the books are wrong"),
        0,
        all.wrong_books,
    );
    lab.check_eq(
        format!("synchronous_commit = {setting}: kills after which the bank pays again by itself"),
        kills,
        all.works_again,
    );
}

/// What one kill did.
#[derive(Default)]
struct Kill {
    acknowledged: u64,
    under_load: Duration,
    lost: u64,
    /// How long before the kill the oldest of the lost was acknowledged.
    oldest_lost: Duration,
    recovery: Duration,
    wrong_books: u64,
    works_again: u64,
}

impl Kill {
    fn row(&self, setting: &str) -> Vec<String> {
        vec![
            setting.to_owned(),
            self.acknowledged.to_string(),
            self.lost.to_string(),
            format!("{:.0}", self.oldest_lost.as_secs_f64() * 1e3),
            format!("{:.0}", self.recovery.as_secs_f64() * 1e3),
        ]
    }
}

/// For connections that are made from now on. Not a setting of the bank: it does not know how safe its
/// database is.
async fn set_synchronous_commit(fixture: &Fixture, setting: &str) -> anyhow::Result<()> {
    let mut connection = fixture.connect().await?;
    let name: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&mut connection).await?;
    // Names cannot be bound; these are our own.
    let alter = format!("alter database {name} set synchronous_commit = {setting}");
    connection.execute(AssertSqlSafe(alter)).await?;
    Ok(())
}

async fn once(
    params: &Params,
    server: &mut OwnServer,
    fixture: &Fixture,
    client: &Client,
    accounts: &[i64],
    round: u64,
) -> anyhow::Result<Kill> {
    let began = Instant::now();
    let paying = Paying::start(client, accounts, params.clients, round);
    tokio::time::sleep(Duration::from_secs_f64(params.seconds)).await;
    paying.enough().await?;
    let under_load = began.elapsed();
    server.kill().await?;
    let killed = Instant::now();
    let acknowledged = paying.ended().await;
    server.restart().await?;
    let recovery = killed.elapsed();

    let mut connection = fixture.connect().await?;
    let kept = kept(&mut connection).await?;
    let lost = acknowledged.iter().filter(|(key, _)| !kept.contains(key));
    let lost: Vec<Instant> = lost.map(|(_, at)| *at).collect();
    let books = Books::read(&mut connection).await?;
    // Whole accounts: transfers move money between customers, and those of the first bank's opening were flushed.
    let least = i64::try_from(ACCOUNTS)? * START;
    let whole = books.customers >= least && books.customers % START == 0;
    let right = whole && Books::right(books.customers) == books;
    let again =
        Payment { key: format!("again-{round}"), from: accounts[0], to: accounts[1], cents: 1 };
    let works_again = until_it_pays(client, &again).await;
    Ok(Kill {
        acknowledged: acknowledged.len() as u64,
        under_load,
        lost: lost.len() as u64,
        oldest_lost: lost.iter().min().map(|&at| killed - at).unwrap_or_default(),
        recovery,
        wrong_books: u64::from(!right),
        works_again: u64::from(works_again.is_ok()),
    })
}

/// The bank was not restarted, and its connections are all broken.
async fn until_it_pays(client: &Client, payment: &Payment) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if client.send(payment).await.is_ok_and(|answer| answer.status() == 201) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(anyhow::anyhow!("it does not pay")).context("the server is back")
}
