//! Who loses an update? Five ways to add to a balance, side by side.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::ensure;
use lab::{
    Experiment, Lab, Sabotage,
    load::{self, Stop},
};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::Mutex;

use super::random::Random;
use crate::{
    database::{Isolation, Work, attempt},
    error::Error,
    retry::retry,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients that add to the balances at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    clients: u16,
    /// Accounts at low contention; at high contention there is one
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(i32).range(8..=10_000))]
    accounts: i32,
    /// Updates in each measurement. A number and not a time: on a busy machine too, there must be something to lose
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(50..=1_000_000))]
    updates: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "lost-update",
        "Read-then-write loses updates at read committed; atomic update, select for update, optimistic version \
         and serializable with retry each lose none",
        &["--updates", "60"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/database.rs",
        replace: r#""begin isolation level serializable""#,
        with: r#""begin""#,
        check: "serializable, retried, one of 1: updates lost",
    })
}

/// A way to add a cent to a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ReadThenWrite,
    AtomicUpdate,
    SelectForUpdate,
    OptimisticVersion,
    SerializableWithRetry,
}

const WAYS: [Way; 5] = [
    Way::ReadThenWrite,
    Way::AtomicUpdate,
    Way::SelectForUpdate,
    Way::OptimisticVersion,
    Way::SerializableWithRetry,
];

impl Way {
    fn isolation(self) -> Isolation {
        match self {
            Self::SerializableWithRetry => Isolation::Serializable,
            _ => Isolation::ReadCommitted,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ReadThenWrite => "read, then write",
            Self::AtomicUpdate => "atomic update",
            Self::SelectForUpdate => "select for update",
            Self::OptimisticVersion => "optimistic version",
            Self::SerializableWithRetry => "serializable, retried",
        }
    }
}

// ANCHOR: ways
/// Adds one cent. Between the reading and the writing, a real program would think.
struct Add {
    way: Way,
    id: i32,
}

impl Work for Add {
    type Answer = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let written = match self.way {
            Way::AtomicUpdate => {
                let update = "update counters set cents = cents + 1 where id = $1";
                sqlx::query(update).bind(self.id).execute(connection).await?.rows_affected()
            }
            Way::ReadThenWrite | Way::SerializableWithRetry => {
                let read = sqlx::query_scalar("select cents from counters where id = $1");
                let cents: i64 = read.bind(self.id).fetch_one(&mut *connection).await?;
                write(connection, self.id, cents + 1).await?
            }
            Way::SelectForUpdate => {
                let read =
                    sqlx::query_scalar("select cents from counters where id = $1 for update");
                let cents: i64 = read.bind(self.id).fetch_one(&mut *connection).await?;
                write(connection, self.id, cents + 1).await?
            }
            Way::OptimisticVersion => {
                let read = sqlx::query_as("select cents, version from counters where id = $1");
                let read: (i64, i64) = read.bind(self.id).fetch_one(&mut *connection).await?;
                write_if_unchanged(connection, self.id, read.0 + 1, read.1).await?
            }
        };
        // The version is another: somebody was faster. Again, from the reading on.
        if written == 0 { Err(Error::Contended) } else { Ok(()) }
    }
}

async fn write(connection: &mut PgConnection, id: i32, cents: i64) -> Result<u64, Error> {
    let update = sqlx::query("update counters set cents = $2 where id = $1").bind(id).bind(cents);
    Ok(update.execute(connection).await?.rows_affected())
}

async fn write_if_unchanged(
    connection: &mut PgConnection,
    id: i32,
    cents: i64,
    version: i64,
) -> Result<u64, Error> {
    let update = sqlx::query(
        r#"
        update counters
        set cents = $2, version = version + 1
        where id = $1 and version = $3
        "#,
    );
    let update = update.bind(id).bind(cents).bind(version);
    Ok(update.execute(connection).await?.rows_affected())
}
// ANCHOR_END: ways

const TITLE: &str = "Updates a second, by the number of accounts that the clients choose from";
const AXES: (&str, &str) = ("accounts, as a power of two", "updates/s");

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let mut admin = PgConnection::connect(database.url()).await?;
    admin
        .execute("create table counters (id int primary key, cents bigint not null, version bigint not null)")
        .await?;
    let mut rows = Vec::new();
    let contention = [1, 8, params.accounts];
    let total = (contention.len() * WAYS.len()) as u64;
    for (n, (accounts, way)) in (0..).zip(
        contention.iter().flat_map(|&accounts| WAYS.into_iter().map(move |way| (accounts, way))),
    ) {
        lab.progress(n, total, format!("{}, {accounts} accounts", way.name()));
        let seen = measure(database.url(), &mut admin, &params, way, accounts).await?;
        lab.point(TITLE, AXES, way.name(), (f64::from(accounts).log2(), seen.throughput));
        rows.push(vec![
            way.name().to_owned(),
            accounts.to_string(),
            format!("{:.0}", seen.throughput),
            seen.added.to_string(),
            seen.lost.to_string(),
            seen.retries.to_string(),
            seen.gave_up.to_string(),
        ]);
        let name = format!("{}, one of {accounts}: updates a second", way.name());
        lab.figure(name, seen.throughput, "updates/s");
        let name = format!("{}, one of {accounts}: updates lost", way.name());
        match way {
            Way::ReadThenWrite if accounts == 1 => {
                lab.check(name, "1 or more", seen.lost, seen.lost > 0);
            }
            // With many accounts it is rare, which is why it comes to light in production.
            Way::ReadThenWrite => lab.figure(name, seen.lost as f64, ""),
            _ => lab.check_eq(name, 0, seen.lost),
        }
        if way != Way::ReadThenWrite {
            let name = format!("{}, one of {accounts}: updates made", way.name());
            lab.check(name, "1 or more", seen.added, seen.added > 0);
        }
    }
    let columns = ["way", "accounts", "updates/s", "answered", "lost", "retries", "gave up"];
    lab.table("Five ways to add a cent", &columns, rows);
    Ok(())
}

struct Seen {
    throughput: f64,
    added: u64,
    /// Answered, and not in the balances.
    lost: i64,
    retries: u64,
    /// Refused once too often; nothing was answered, and nothing done.
    gave_up: u64,
}

/// A client, its connection, and what it counts.
struct Client {
    connection: PgConnection,
    way: Way,
    accounts: i32,
    random: Random,
    retries: Arc<AtomicU64>,
}

async fn measure(
    url: &str,
    admin: &mut PgConnection,
    params: &Params,
    way: Way,
    accounts: i32,
) -> anyhow::Result<Seen> {
    admin.execute("truncate counters").await?;
    sqlx::query("insert into counters select id, 0, 0 from generate_series(1, $1) as id")
        .bind(accounts)
        .execute(&mut *admin)
        .await?;
    let retries = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..params.clients {
        let connection = PgConnection::connect(url).await?;
        clients.push(Client {
            connection,
            way,
            accounts,
            random: Random::new(),
            retries: retries.clone(),
        });
    }
    let stop = Stop::Count(params.updates);
    let outcome = load::closed(clients, stop, |client| Box::pin(one(client))).await?;
    if let Some(error) = &outcome.first_error {
        ensure!(error == GAVE_UP, "{}: {error}", way.name());
    }
    let kept: i64 =
        sqlx::query_scalar("select sum(cents)::bigint from counters").fetch_one(admin).await?;
    Ok(Seen {
        throughput: outcome.throughput(),
        added: outcome.ok,
        lost: i64::try_from(outcome.ok)? - kept,
        retries: retries.load(Ordering::Relaxed),
        gave_up: outcome.failed,
    })
}

const GAVE_UP: &str = "gave up";

async fn one(client: &mut Client) -> anyhow::Result<()> {
    let id = 1 + i32::try_from(client.random.below(u64::from(client.accounts.unsigned_abs())))?;
    let (way, attempts) = (client.way, AtomicU64::new(0));
    // Only one attempt at a time has it: the lock never waits.
    let connection = Mutex::new(&mut client.connection);
    let outcome = retry(|| async {
        attempts.fetch_add(1, Ordering::Relaxed);
        attempt(*connection.lock().await, way.isolation(), &Add { way, id }).await?
    })
    .await;
    client.retries.fetch_add(attempts.into_inner() - 1, Ordering::Relaxed);
    match outcome {
        Err(Error::Contended) => anyhow::bail!(GAVE_UP),
        outcome => Ok(outcome?),
    }
}
