//! Who waits for whom for ever? Transfers in both directions, which lock in the order of the request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::ensure;
use lab::{
    Experiment, Lab, Sabotage,
    load::{self, Outcome, Stop},
};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use super::{
    books::Books,
    fixture::Fixture,
    random::Random,
    sessions::{Stage, hasten_all_deadlocks, hasten_deadlocks},
    steps::{Step, columns, t1, t2},
};
use crate::{
    amount::AmountCents,
    cases::client::{Client, Payment},
    database::{Isolation, Work, attempt},
    error::Error,
    retry::retry,
    store,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Transfers, in all directions
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(50..=100_000))]
    transfers: u64,
    /// Accounts; with two, each transfer is in the way of all others, and twelve retries are not enough
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(2..=1_000))]
    accounts: i64,
    /// Clients that make them
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "deadlock",
        "Transfers in both directions that lock in the order of the request deadlock, and with retries all of \
         them succeed; with ordered locks none ever does",
        &["--transfers", "200", "--accounts", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: r"order by id
    for no key update",
        with: "order by id",
        check: "in order, deadlocks that PostgreSQL has seen",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    step_by_step(&lab).await?;
    lab.progress(1, 4, "without an order, without retries");
    let careless = unordered(&lab, &params, false).await?;
    lab.progress(2, 4, "without an order, with retries");
    let retried = unordered(&lab, &params, true).await?;
    lab.progress(3, 4, "in order: the service");
    let ordered = in_order(&lab, &params).await?;
    let mut rows = Vec::new();
    for (name, seen) in [
        ("without an order", &careless),
        ("without an order, retried", &retried),
        ("in order (the service, over HTTP)", &ordered),
    ] {
        rows.push(vec![
            name.to_owned(),
            seen.outcome.ok.to_string(),
            seen.outcome.failed.to_string(),
            seen.deadlocks.to_string(),
            format!("{:.0}", seen.outcome.throughput()),
        ]);
    }
    let head = ["locks", "succeeded", "failed", "deadlocks, PostgreSQL counted", "transfers/s"];
    lab.table("The same transfers, three times", &head, rows);
    let deadlocks = careless.deadlocks;
    lab.check("without an order there are deadlocks", "1 or more", deadlocks, deadlocks > 0);
    lab.check_eq(
        "and each of them fails one transfer",
        careless.deadlocks,
        careless.outcome.failed,
    );
    let deadlocks = retried.deadlocks;
    lab.check("with retries there are deadlocks too", "1 or more", deadlocks, deadlocks > 0);
    lab.check_eq("but all transfers succeed", params.transfers, retried.outcome.ok);
    lab.check_eq("in order, deadlocks that PostgreSQL has seen", 0, ordered.deadlocks);
    lab.check_eq("in order, transfers that succeed", params.transfers, ordered.outcome.ok);
    for (name, seen) in
        [("without an order", careless), ("with retries", retried), ("in order", ordered)]
    {
        let books = format!("the books afterwards, {name}");
        lab.check_eq(books, Books::right(params.accounts * START).words(), seen.books.words());
    }
    Ok(())
}

/// In each account.
const START: i64 = 1_000_000_000;

/// Two sessions, one statement at a time.
async fn step_by_step(lab: &Lab) -> anyhow::Result<()> {
    const STEPS: &[Step] = &[
        t1("update pair set cents = cents - 1 where id = 1"),
        t2("update pair set cents = cents - 1 where id = 2"),
        t1("update pair set cents = cents + 1 where id = 2"),
        t2("update pair set cents = cents + 1 where id = 1"),
        t1("commit"),
        t2("commit"),
    ];
    lab.progress(0, 4, "step by step");
    let database = lab.database().await?;
    let mut admin = PgConnection::connect(database.url()).await?;
    sqlx::raw_sql(
        "create table pair (id int primary key, cents int); insert into pair values (1, 5), (2, 5)",
    )
    .execute(&mut admin)
    .await?;
    if !hasten_deadlocks(&mut admin).await {
        lab.text("This server does not let us set deadlock_timeout: each deadlock takes a second.");
    }
    let mut stage = Stage::open(database.url()).await?;
    let trace = stage.play(Isolation::ReadCommitted.begin(), STEPS).await?;
    let rows = columns(STEPS, 2).into_iter().zip(trace.words());
    let rows = rows.map(|(row, word)| [row, vec![word]].concat()).collect();
    lab.table("One deadlock, step by step", &["T1", "T2", "what came of it"], rows);
    lab.check_eq(
        "of two that wait for each other, one is refused",
        "40P01".to_owned(),
        trace.failures().join(", "),
    );
    let left: Vec<i32> =
        sqlx::query_scalar("select cents from pair order by id").fetch_all(&mut admin).await?;
    let (mine, other) = (format!("{left:?}"), left[0] + left[1]);
    let moved_once = left == [4, 6] || left == [6, 4];
    lab.check("and the other one is done, whole", "[4, 6] or [6, 4]", mine, moved_once);
    lab.check_eq("so nothing is gained or lost", 10, other);
    Ok(())
}

struct Seen {
    outcome: Outcome,
    deadlocks: u64,
    books: Books,
}

/// A client that locks who pays first, as everybody writes it down at first.
struct Careless {
    connection: PgConnection,
    random: Random,
    accounts: Vec<i64>,
    retries: bool,
}

async fn unordered(lab: &Lab, params: &Params, retries: bool) -> anyhow::Result<Seen> {
    let fixture = Fixture::of(lab).await?;
    let accounts = fixture.open_accounts(params.accounts, START).await?;
    let mut clients = Vec::new();
    for _ in 0..params.clients {
        let mut connection = fixture.connect().await?;
        hasten_deadlocks(&mut connection).await;
        let (random, accounts) = (Random::new(), accounts.clone());
        clients.push(Careless { connection, random, accounts, retries });
    }
    let outcome = load::closed(clients, Stop::Count(params.transfers), |client| {
        Box::pin(async move {
            let Payment { from, to, .. } = client.random.payment(String::new(), &client.accounts);
            let work = Unordered { from, to };
            // Only one attempt at a time has it: the lock never waits.
            let connection = Mutex::new(&mut client.connection);
            let once = || async {
                attempt(*connection.lock().await, Isolation::ReadCommitted, &work).await?
            };
            let outcome = if client.retries { retry(once).await } else { once().await };
            Ok(outcome?)
        })
    })
    .await?;
    if let Some(error) = &outcome.first_error {
        ensure!(*error == Error::Contended.to_string(), "{error}");
    }
    look(fixture.database.url(), outcome).await
}

/// The statements of the service, with the locks in the order of the request: first who pays. Two updates, as the
/// textbook has them, lock in the same way.
struct Unordered {
    from: i64,
    to: i64,
}

impl Work for Unordered {
    type Answer = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let cent = AmountCents::parse(1).map_err(|_| Error::NotFound)?;
        let next = sqlx::query_scalar("select nextval('transfer_ids')");
        let id = next.fetch_one(&mut *connection).await?;
        for account in [self.from, self.to] {
            store::lock_accounts(connection, account, account).await?;
        }
        store::move_money(connection, id, (self.from, self.to), cent).await?;
        Ok(())
    }
}

/// A client of the service.
struct Customer {
    client: Client,
    random: Random,
    accounts: Vec<i64>,
    /// Of all customers together, so that no two use one key.
    number: Arc<AtomicU64>,
}

async fn in_order(lab: &Lab, params: &Params) -> anyhow::Result<Seen> {
    let fixture = Fixture::of(lab).await?;
    let accounts = fixture.open_accounts(params.accounts, START).await?;
    // There are none; but should there be some, they are to be seen soon.
    hasten_all_deadlocks(&mut fixture.connect().await?).await;
    let (mut child, client) = fixture.start(&[]).await?;
    let number = Arc::new(AtomicU64::new(0));
    let customer = || Customer {
        client: client.clone(),
        random: Random::new(),
        accounts: accounts.clone(),
        number: number.clone(),
    };
    let clients = (0..params.clients).map(|_| customer()).collect();
    let outcome = load::closed(clients, Stop::Count(params.transfers), |customer| {
        Box::pin(async move {
            let key = format!("key-{}", customer.number.fetch_add(1, Ordering::Relaxed));
            let payment = customer.random.payment(key, &customer.accounts);
            let answer = customer.client.send_until_decided(&payment).await?;
            ensure!(answer.status() == 201, "{}: {}", answer.status(), answer.text().await?);
            Ok(())
        })
    })
    .await?;
    // Its connections close, and with that PostgreSQL's counters are up to date.
    child.stop().await?;
    look(fixture.database.url(), outcome).await
}

/// The books, and how many deadlocks PostgreSQL has counted in this database. A backend hands in its counts
/// when it ends: the answer is there when no other is connected any more.
async fn look(url: &str, outcome: Outcome) -> anyhow::Result<Seen> {
    let mut connection = PgConnection::connect(url).await?;
    let alone = "select count(*) = 1 from pg_stat_activity where datname = current_database() \
                 and backend_type = 'client backend'";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !sqlx::query_scalar::<_, bool>(alone).fetch_one(&mut connection).await? {
        ensure!(std::time::Instant::now() < deadline, "somebody is still connected");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks).fetch_one(&mut connection).await?;
    let books = Books::read(&mut connection).await?;
    Ok(Seen { outcome, deadlocks: deadlocks.unsigned_abs(), books })
}
