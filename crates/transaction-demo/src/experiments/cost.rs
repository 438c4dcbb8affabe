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
    /// Seconds for each measurement, in whole seconds, since pgbench knows no others
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub seconds: u32,
    /// Rounds of four measurements: pgbench, the service twice, and pgbench again
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "A transfer over HTTP costs little more than its statements: the service makes as many as pgbench, or \
         nearly",
        &["--rounds", "1", "--seconds", "1", "--clients", "8", "--accounts", "100"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/bank.rs",
        replace: "store::credit(connection, to, amount).await?;",
        with: "",
        check: "the books of the service",
    })
}

const START: i64 = 1_000_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // Two databases, so that neither finds the other's tables grown; on one server, with one disk.
    let (ours, theirs) = (Fixture::of(&lab).await?, Fixture::of(&lab).await?);
    for fixture in [&ours, &theirs] {
        open_accounts(fixture, params.accounts).await?;
    }
    let program = pgbench::find();
    if program.is_none() {
        lab.text("pgbench is not installed here: its half of this experiment is skipped.");
    }
    let script = pgbench::write(&pgbench::script(params.accounts))?;
    let mut child = ours.serve().start().await?;
    let (mut ratios, mut rates, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let (mut paid, mut failed, mut benched) = (0, 0, 0);
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "measured by turns");
        // Neither is always first: what warms up, fills up or slows down with time falls on both alike.
        let (mut theirs_at, mut ours_at) = (Vec::new(), Vec::new());
        for (n, who) in (4 * round..).zip([Who::Pgbench, Who::Service, Who::Service, Who::Pgbench])
        {
            match (who, &program) {
                (Who::Pgbench, Some(program)) => {
                    let Params { clients, seconds, .. } = params;
                    let database = &theirs.database;
                    let bench =
                        pgbench::run(program, &script, database, clients, seconds, n).await?;
                    theirs_at.push(bench.rate);
                    benched += bench.transactions;
                    rows.push(row("pgbench", bench.rate));
                }
                (Who::Pgbench, None) => {}
                (Who::Service, _) => {
                    // Both begin with new connections, whose caches are empty. Ours are made while the clock runs,
                    // pgbench's before.
                    child.stop().await?;
                    child.restart().await?;
                    let pay = pay(child.address(), &params, n).await?;
                    ours_at.push(pay.throughput());
                    paid += pay.ok;
                    failed += pay.failed;
                    rows.push(row("the service, over HTTP", pay.throughput()));
                    if let Some(error) = pay.first_error {
                        lab.text(format!("the first failure: {error}"));
                    }
                }
            }
        }
        if !theirs_at.is_empty() {
            ratios.push(ours_at.iter().sum::<f64>() / theirs_at.iter().sum::<f64>());
        }
        rates.extend(ours_at);
    }
    lab.table("Each measurement", &["who", "transfers/s"], rows);
    lab.figure("transfers a second, median", load::median(rates), "transfers/s");
    if !ratios.is_empty() {
        let name = "transfers a second ÷ those of pgbench, median of the rounds";
        lab.figure_with_target(name, load::median(ratios), "", Target::AtLeast(0.8));
    }
    lab.check_eq("transfers that failed", 0, failed);
    check_books(&lab, &ours, &params, "the service", paid).await?;
    if program.is_some() {
        check_books(&lab, &theirs, &params, "pgbench", benched).await?;
    }
    Ok(())
}

/// Who is measured.
#[derive(Clone, Copy)]
enum Who {
    Pgbench,
    Service,
}

fn row(who: &str, rate: f64) -> Vec<String> {
    vec![who.to_owned(), format!("{rate:.0}")]
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

/// Accounts 1 to n, with the same in each. In one statement: thousands of requests would take longer than
/// all that is measured.
async fn open_accounts(fixture: &Fixture, accounts: u32) -> anyhow::Result<()> {
    let mut connection = fixture.connect().await?;
    let open = sqlx::query(
        r#"
        with opened as (
            insert into accounts (owner, balance_cents)
            select 'Somebody', $2
            from generate_series(1, $1)
            returning id
        ), paid_in as (
            insert into transfers (from_account, to_account, amount_cents)
            select 0, id, $2
            from opened
            returning id, to_account
        ), written as (
            insert into entries (transfer_id, account_id, amount_cents)
            select id, account, cents
            from paid_in
            cross join lateral (values (0, -$2::bigint), (to_account, $2)) as half (account, cents)
        )
        update accounts
        set balance_cents = -$1::bigint * $2
        where id = 0
        "#,
    );
    open.bind(i64::from(accounts)).bind(START).execute(&mut connection).await?;
    sqlx::raw_sql("vacuum analyze").execute(&mut connection).await?;
    Ok(())
}

/// A client of the service, over one connection.
struct Client {
    connection: Connection,
    key: u64,
    random: Random,
    accounts: Vec<i64>,
}

async fn pay(host: &str, params: &Params, round: u32) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for client in 0..params.clients {
        clients.push(Client {
            connection: Connection::open(host).await?,
            key: pgbench::first_key(round) + u64::from(client) * 1_000_000_000,
            random: Random::new(),
            accounts: (1..=i64::from(params.accounts)).collect(),
        });
    }
    let stop = Stop::After(Duration::from_secs(params.seconds.into()));
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
