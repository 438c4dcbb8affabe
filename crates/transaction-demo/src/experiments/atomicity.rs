//! What becomes of the money when the bank is killed half-way through a transfer?

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use lab::{Experiment, Lab, Sabotage, child::Child};
use sqlx::PgConnection;
use tokio::{task::JoinSet, time::sleep};

use super::{
    books::Books,
    fixture::{Fixture, start, until_paid},
    random::Random,
    watch::{HALF_WAY, Open, STEPS, named, open_transactions},
};
use crate::cases::client::{Client, Payment};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that a process of the bank is killed
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    kills: u64,
    /// Processes of the bank, each killed again and again
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=16))]
    processes: u64,
    /// Clients for each process
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=32))]
    clients: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "atomicity",
        "SIGKILL, five hundred times under load, at random points and between the moving of the money and its commit: \
         the money in the bank never changes; what was answered with 201 is there, once",
        &["--kills", "24", "--processes", "3", "--clients", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/database.rs",
        replace: "connection.execute(isolation.begin()).await?;",
        with: r#"connection.execute("select 1").await?;
    let _ = isolation;"#,
        check: "payments that were answered with anything but 201 in the end",
    })
}

const ACCOUNTS: usize = 20;
const START: i64 = 100_000_000;
/// A process answers so many payments before it may be killed, at most.
const LONGEST_LIFE: u64 = 10;
/// And then it lives on for so many milliseconds, at most.
const LONGEST_WAIT: u64 = 10;
/// So often we look for a moment just before a commit, before any other moment will do.
const LOOKS: u32 = 200;

/// What all tasks share.
struct Shared {
    kills_left: AtomicU64,
    /// Payments that each process has answered.
    answered: Vec<AtomicU64>,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Every payment that was answered with 201, and its transfer's number.
    paid: Vec<(Payment, i64)>,
    /// Payments that had to be sent again because the process had died.
    sent_again: u64,
    /// Payments that got another answer: all have a key of their own, and there is money enough.
    refused: Vec<String>,
    /// What open transactions had done last when their process was killed.
    killed_after: HashMap<Open, u64>,
    /// Looks just after a kill at which the money in the bank was another.
    wrong_looks: u64,
    looks: u64,
}

impl Shared {
    /// A panic cannot leave it half changed, so poison is ignored.
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let shared = Arc::new(Shared {
        kills_left: AtomicU64::new(params.kills),
        answered: (0..params.processes).map(|_| AtomicU64::new(0)).collect(),
        stop: AtomicBool::new(false),
        seen: Mutex::default(),
    });
    let (mut banks, mut processes) = (Vec::new(), Vec::new());
    for number in 0..params.processes {
        let name = format!("bank-{number}");
        let url = named(fixture.database.url(), &name)?;
        let (child, client) = start(fixture.serve().env("DATABASE_URL", url)).await?;
        processes.push(client);
        banks.push((name, child));
    }
    let accounts = processes[0].open_all(ACCOUNTS, START).await?;
    let clients = clients(&params, &processes, &accounts, &shared);
    let mut killers = JoinSet::new();
    for (number, (name, child)) in banks.into_iter().enumerate() {
        let observer = fixture.connect().await?;
        killers.spawn(kill_again_and_again(number, name, child, observer, shared.clone()));
    }
    let mut alive = Vec::new();
    while !killers.is_empty() {
        let left = shared.kills_left.load(Ordering::Relaxed);
        lab.progress(params.kills - left, params.kills, "kills under load");
        let next = tokio::time::timeout(Duration::from_millis(200), killers.join_next());
        if let Ok(Some(ended)) = next.await {
            // Until the last payment is answered there have to be processes that answer it.
            alive.push(ended.context("a killer panicked")??);
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    for client in clients.join_all().await {
        client?;
    }
    drop(alive);
    report(&params, &lab, &fixture, &accounts, &shared).await
}

/// Each pays again and again, and sends each payment until it is answered: if the process has died, to the next.
fn clients(
    params: &Params,
    processes: &[Client],
    accounts: &[i64],
    shared: &Arc<Shared>,
) -> JoinSet<anyhow::Result<()>> {
    let mut clients = JoinSet::new();
    for client in 0..usize::try_from(params.processes * params.clients).unwrap_or(0) {
        let (processes, accounts, shared) = (processes.to_vec(), accounts.to_vec(), shared.clone());
        clients.spawn(async move {
            let mut random = Random::new();
            for number in 0_u64.. {
                if shared.stop.load(Ordering::Relaxed) {
                    break;
                }
                let payment = random.payment(format!("{client}-{number}"), &accounts);
                let (body, at, sent) = match until_paid(&processes, client, &payment).await {
                    Ok(paid) => paid,
                    Err(error) => {
                        shared.seen().refused.push(format!("{error:#}"));
                        continue;
                    }
                };
                shared.answered[at].fetch_add(1, Ordering::Relaxed);
                let transfer = body["id"].as_i64().context("no id")?;
                let mut seen = shared.seen();
                seen.paid.push((payment, transfer));
                seen.sent_again += sent - 1;
            }
            Ok(())
        });
    }
    clients
}

/// Kills one process as long as there are kills left, and starts it again. Every second kill is at any moment; for
/// the others we look for one at which money is moved and not committed.
async fn kill_again_and_again(
    number: usize,
    name: String,
    mut child: Child,
    mut observer: PgConnection,
    shared: Arc<Shared>,
) -> anyhow::Result<Child> {
    let mut random = Random::new();
    let one_less = |left: u64| left.checked_sub(1);
    while let Ok(left) =
        shared.kills_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
    {
        under_load(&shared.answered[number], 1 + random.below(LONGEST_LIFE)).await?;
        // Not to wait for anything: the random point.
        sleep(Duration::from_millis(random.below(LONGEST_WAIT))).await;
        let looks = if left % 2 == 0 { LOOKS } else { 1 };
        let open = stop_it(&child, &mut observer, &name, looks).await?;
        child.kill().await?;
        let total: i64 = sqlx::query_scalar("select sum(balance_cents)::bigint from accounts")
            .fetch_one(&mut observer)
            .await?;
        {
            let mut seen = shared.seen();
            seen.looks += 1;
            seen.wrong_looks += u64::from(total != 0);
            for transaction in open {
                *seen.killed_after.entry(transaction).or_default() += 1;
            }
        }
        child.restart().await?;
    }
    Ok(child)
}

/// Waits until the process has answered so many more payments.
async fn under_load(answered: &AtomicU64, more: u64) -> anyhow::Result<()> {
    let enough = answered.load(Ordering::Relaxed) + more;
    let deadline = Instant::now() + Duration::from_secs(20);
    while answered.load(Ordering::Relaxed) < enough {
        ensure!(Instant::now() < deadline, "a process does not answer");
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Stops the process at a moment at which it has moved money and not committed, or, if so many looks have not
/// found one, at any. It notices nothing: SIGSTOP, like the SIGKILL that follows, cannot be caught.
async fn stop_it(
    child: &Child,
    observer: &mut PgConnection,
    name: &str,
    looks: u32,
) -> anyhow::Result<Vec<Open>> {
    for _ in 1..looks {
        child.pause()?;
        let open = open_transactions(observer, name).await?;
        if open.contains(&HALF_WAY) {
            return Ok(open);
        }
        child.resume()?;
        sleep(Duration::from_millis(1)).await;
    }
    child.pause()?;
    open_transactions(observer, name).await
}

async fn report(
    params: &Params,
    lab: &Lab,
    fixture: &Fixture,
    accounts: &[i64],
    shared: &Shared,
) -> anyhow::Result<()> {
    let mut connection = fixture.connect().await?;
    let seen = std::mem::take(&mut *shared.seen());
    let count = |step, done| seen.killed_after.get(&Open { step, done }).copied().unwrap_or(0);
    let row = |step: &&'static str| {
        vec![(*step).to_owned(), count(step, false).to_string(), count(step, true).to_string()]
    };
    let title = "Open transactions of killed processes, by the last statement that PostgreSQL had";
    let columns = ["statement", "it was running", "it was done, and the next not there"];
    lab.table(title, &columns, STEPS.iter().map(row).collect());
    lab.figure("payments answered with 201", seen.paid.len() as f64, "");
    lab.figure("times that a payment was sent again", seen.sent_again as f64, "");

    lab.check_eq("kills, each followed by a look at all balances", params.kills, seen.looks);
    let (half_way, wanted) = (count(HALF_WAY.step, HALF_WAY.done), params.kills / 4);
    lab.check(
        "transactions that were killed with their money moved and not committed",
        format!("{wanted} or more"),
        half_way,
        half_way >= wanted,
    );
    let refused = match &seen.refused[..] {
        [] => "none".to_owned(),
        [first, ..] => format!("{}, such as {first}", seen.refused.len()),
    };
    lab.check(
        "payments that were answered with anything but 201 in the end",
        "none",
        refused,
        seen.refused.is_empty(),
    );
    lab.check_eq("looks at which the balances did not sum to zero", 0, seen.wrong_looks);
    let customers = START * i64::try_from(ACCOUNTS)?;
    let books = Books::read(&mut connection).await?;
    lab.check_eq("the books at the end", Books::right(customers).words(), books.words());

    let mut balances: HashMap<i64, i64> = accounts.iter().map(|&id| (id, START)).collect();
    for (Payment { from, to, cents, .. }, _) in &seen.paid {
        *balances.entry(*from).or_default() -= cents;
        *balances.entry(*to).or_default() += cents;
    }
    let kept: Vec<(i64, i64)> =
        sqlx::query_as("select id, balance_cents from accounts where id > 0")
            .fetch_all(&mut connection)
            .await?;
    ensure!(kept.len() == accounts.len(), "{} accounts", kept.len());
    let wrong = kept.iter().filter(|(id, cents)| balances.get(id) != Some(cents)).count();
    lab.check_eq("accounts whose balance is not what the answers add up to", 0, wrong);
    let there: HashMap<i64, (i64, i64, i64)> = sqlx::query_as::<_, (i64, i64, i64, i64)>(
        "select id, from_account, to_account, amount_cents from transfers where from_account > 0",
    )
    .fetch_all(&mut connection)
    .await?
    .into_iter()
    .map(|(id, from, to, cents)| (id, (from, to, cents)))
    .collect();
    let lost = seen
        .paid
        .iter()
        .filter(|(paid, transfer)| there.get(transfer) != Some(&(paid.from, paid.to, paid.cents)));
    lab.check_eq("payments answered with 201 that are not there", 0, lost.count());
    // Each was sent until it was answered, so what is there beyond the answers is there twice.
    lab.check_eq("transfers that are there", seen.paid.len(), there.len());
    Ok(())
}
