//! What does a transfer cost, beside `pgbench` that makes the same statements?

use std::time::Duration;

use anyhow::ensure;
use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{self, Outcome, Stop, http::Connection},
};

use super::{books::Books, fixture::Fixture, pgbench, random::Random};
use crate::database::CONNECTIONS;

/// As many as there are connections.
const MOST_CLIENTS: i64 = CONNECTIONS as i64;

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Clients, each of which pays without a pause. Not more than the service has connections, since each of pgbench's
    /// has one
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=MOST_CLIENTS))]
    pub clients: u16,
    /// Accounts that they choose from
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub accounts: u32,
    /// Seconds for each measurement, in whole seconds, since pgbench knows no others. In short ones, what either side
    /// does once for each connection would count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub seconds: u32,
    /// Rounds of four measurements: pgbench, the service twice, and pgbench again
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "A transfer over HTTP costs half as much again as its statements at most: the service makes two thirds of \
         pgbench's transfers at least",
        &["--rounds", "1", "--seconds", "1", "--clients", "8", "--accounts", "100"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "set balance_cents = balance_cents + $4",
        with: "set balance_cents = balance_cents",
        check: "the books of the service",
    })
}

const START: i64 = 1_000_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // Two databases, so that neither finds the other's tables grown; on one server, with one disk.
    let (ours, theirs) = (Fixture::of(&lab).await?, Fixture::of(&lab).await?);
    for fixture in [&ours, &theirs] {
        fixture.open_accounts(params.accounts.into(), START).await?;
    }
    let program = pgbench::find();
    if program.is_none() {
        lab.text("pgbench is not installed here: its half of this experiment is skipped.");
    }
    let script = pgbench::write(&pgbench::script(params.accounts))?;
    let child = ours.serve().start().await?;
    // Both are warm when they are measured: the server's cache, the service's connections and their prepared
    // statements. Neither is always first: what fills up or slows down with time falls on both alike.
    let turns = [Who::Pgbench, Who::Service, Who::Service, Who::Pgbench];
    let warm_up = [Who::Pgbench, Who::Service].map(|who| (None, who));
    let rounds = (0..params.rounds).flat_map(|round| turns.map(|who| (Some(round), who)));
    let (mut measured, mut paid, mut failed, mut benched) = (Vec::new(), 0, 0, 0);
    for (n, (round, who)) in (0..).zip(warm_up.into_iter().chain(rounds)) {
        lab.progress(n.into(), (2 + 4 * params.rounds).into(), "measured by turns");
        let seconds = if round.is_some() { params.seconds } else { 1 };
        let rate = match (who, &program) {
            (Who::Pgbench, Some(program)) => {
                let (database, clients) = (&theirs.database, params.clients);
                let bench = pgbench::run(program, &script, database, clients, seconds, n).await?;
                benched += bench.transactions;
                bench.rate
            }
            (Who::Pgbench, None) => continue,
            (Who::Service, _) => {
                let pay = pay(child.address(), &params, n, seconds).await?;
                paid += pay.ok;
                failed += pay.failed;
                if let Some(error) = &pay.first_error {
                    lab.text(format!("the first failure: {error}"));
                }
                pay.throughput()
            }
        };
        measured.extend(round.map(|round| (round, who, rate)));
    }
    let of = |round: u32, who: Who| {
        let these = measured.iter().filter(|(at, by, _)| (*at, *by) == (round, who));
        these.map(|(.., rate)| *rate).collect::<Vec<_>>()
    };
    let rates = (0..params.rounds).flat_map(|round| of(round, Who::Service)).collect();
    let ratio = |round| {
        of(round, Who::Service).iter().sum::<f64>() / of(round, Who::Pgbench).iter().sum::<f64>()
    };
    let rows = measured.iter().map(|(_, who, rate)| vec![who.name(), format!("{rate:.0}")]);
    lab.table("Each measurement", &["who", "transfers/s"], rows.collect());
    lab.figure("transfers a second, median", load::median(rates), "transfers/s");
    if program.is_some() {
        let ratios = (0..params.rounds).map(ratio).collect();
        let name = "transfers a second ÷ those of pgbench, median of the rounds";
        lab.figure_with_target(name, load::median(ratios), "", Target::AtLeast(0.95));
    }
    lab.check_eq("transfers that failed", 0, failed);
    check_books(&lab, &ours, &params, "the service", paid).await?;
    if program.is_some() {
        check_books(&lab, &theirs, &params, "pgbench", benched).await?;
    }
    Ok(())
}

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Pgbench,
    Service,
}

impl Who {
    fn name(self) -> String {
        let name = match self {
            Self::Pgbench => "pgbench",
            Self::Service => "the service, over HTTP",
        };
        name.to_owned()
    }
}

/// What was measured has to be the real thing: whoever made them, the transfers are there and right.
async fn check_books(
    lab: &Lab,
    fixture: &Fixture,
    params: &Params,
    who: &str,
    made: u64,
) -> anyhow::Result<()> {
    let mut connection = fixture.connect().await?;
    let (transfers, bytes): (i64, i64) = sqlx::query_as(
        r#"
        select
            count(*) filter (where from_account > 0),
            pg_total_relation_size('transfers') + pg_total_relation_size('entries')
                + pg_total_relation_size('idempotency_keys')
        from transfers
        "#,
    )
    .fetch_one(&mut connection)
    .await?;
    let all = bytes as f64 / (transfers + i64::from(params.accounts)) as f64;
    lab.figure(format!("on disk, for each transfer of {who}, with its indexes"), all, "bytes");
    lab.check_eq(
        format!("transfers that are there of those by {who}"),
        made,
        transfers.unsigned_abs(),
    );
    let books = Books::read(&mut connection).await?;
    let right = Books::right(START * i64::from(params.accounts));
    lab.check_eq(format!("the books of {who}"), right.words(), books.words());
    Ok(())
}

/// A client of the service, over one connection.
struct Client {
    connection: Connection,
    key: u64,
    random: Random,
    accounts: Vec<i64>,
}

/// Connects, and pays for so many seconds from then on. pgbench too does not count how long it connects.
async fn pay(host: &str, params: &Params, turn: u32, seconds: u32) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for client in 0..params.clients {
        clients.push(Client {
            connection: Connection::open(host).await?,
            key: pgbench::first_key(turn) + u64::from(client) * 1_000_000_000,
            random: Random::new(),
            accounts: (1..=i64::from(params.accounts)).collect(),
        });
    }
    let stop = Stop::After(Duration::from_secs(seconds.into()));
    load::closed(clients, stop, |client| Box::pin(one(client))).await
}

async fn one(client: &mut Client) -> anyhow::Result<()> {
    client.key += 1;
    let payment = client.random.payment(client.key.to_string(), &client.accounts);
    let body = payment.body().to_string();
    let key = [("idempotency-key", payment.key)];
    let request = client.connection.post_with("/transfers", &key, &body);
    let mut status = client.connection.send(&request).await?;
    // Told to try again, with the same key: it does. The time that this takes is in the figures.
    for _ in 0..10 {
        if status != 503 {
            break;
        }
        status = client.connection.send(&request).await?;
    }
    ensure!(status == 201, "{status}");
    Ok(())
}
