//! One payment is sent fifty times, and whoever takes it may die: how often is it made?

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use lab::{
    Experiment, Lab, Sabotage,
    child::Child,
    fault::{Proxy, Side},
};
use serde_json::Value;
use sqlx::PgConnection;
use tokio::{sync::Barrier, task::JoinSet, time::sleep};

use super::{
    books::Books,
    fixture::{Fixture, start, until_paid},
    random::Random,
    watch::{named, open_transactions},
};
use crate::cases::client::{Client, Payment, said};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that each payment is sent at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=500))]
    copies: u16,
    /// Payments, one after another; during each a process of the bank is killed
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    payments: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "idempotency",
        "One payment sent fifty times at once, with kills and retries, becomes one transfer and one answer; so it \
         does when its process dies after any one message of the transaction",
        &["--payments", "6"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/bank.rs",
        replace: r"let Some(id) = store::claim_key(connection, &self.claim).await? else {
            return self.answer_again(connection).await;
        };",
        with: r#"let next = sqlx::query_scalar("select nextval('transfer_ids')");
        let id = next.fetch_one(&mut *connection).await?;"#,
        check: "transfers that were made",
    })
}

const START: i64 = 1_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut connection = fixture.connect().await?;
    let ((one, client), (two, other)) = tokio::try_join!(fixture.start(&[]), fixture.start(&[]))?;
    let accounts = client.open_all(2, START).await?;
    let (mut banks, clients) = ([one, two], [client, other]);
    at_once(&params, &lab, &mut banks, &clients, &accounts, &mut connection).await?;
    each_message(&lab, &fixture, &clients[0], &accounts, &mut connection).await?;
    refused(&lab, &clients[0], accounts[0]).await?;
    let books = Books::read(&mut connection).await?;
    lab.check_eq("the books at the end", Books::right(2 * START).words(), books.words());
    Ok(())
}

/// Every payment is sent by many at once, half of them to each process, and one of the two is killed.
async fn at_once(
    params: &Params,
    lab: &Lab,
    banks: &mut [Child; 2],
    clients: &[Client; 2],
    accounts: &[i64],
    connection: &mut PgConnection,
) -> anyhow::Result<()> {
    let (mut random, mut answers, mut different, mut sent) = (Random::new(), 0, 0, 0);
    for number in 0..params.payments {
        lab.progress(number, params.payments, "payments, each sent many times at once");
        let payment = random.payment(format!("payment-{number}"), accounts);
        let crowd = crowd(clients, params.copies.into(), &payment);
        // Not to wait for anything: a random moment.
        sleep(Duration::from_millis(random.below(15))).await;
        let victim = &mut banks[usize::try_from(number % 2)?];
        victim.kill().await?;
        victim.restart().await?;
        let mut bodies = Vec::new();
        for answer in crowd.join_all().await {
            let (body, times) = answer?;
            bodies.push(body);
            sent += times;
        }
        answers += bodies.len() as u64;
        different += bodies.iter().filter(|&body| *body != bodies[0]).count();
    }
    let copies = params.payments * u64::from(params.copies);
    lab.figure("requests, with those sent again because a process died", sent as f64, "");
    lab.check_eq("copies that were answered with 201 in the end", copies, answers);
    lab.check_eq("answers that differ from the others of their payment", 0, different);
    lab.check("and some had to be sent again", "more than the copies", sent, sent > copies);
    let transfers: i64 =
        sqlx::query_scalar("select count(*) from transfers where from_account > 0")
            .fetch_one(connection)
            .await?;
    lab.check_eq("transfers that were made", params.payments, transfers.unsigned_abs());
    Ok(())
}

/// Lets all loose at once; each sends until it is answered. Returns the answer, and how often it was sent.
fn crowd(
    clients: &[Client; 2],
    copies: usize,
    payment: &Payment,
) -> JoinSet<anyhow::Result<(Value, u64)>> {
    let (mut crowd, start) = (JoinSet::new(), Arc::new(Barrier::new(copies)));
    for copy in 0..copies {
        let (clients, payment, start) = (clients.clone(), payment.clone(), start.clone());
        crowd.spawn(async move {
            start.wait().await;
            let (body, _, sent) = until_paid(&clients, copy, &payment).await?;
            Ok((body, sent))
        });
    }
    crowd
}

/// Kills a process after each message of its transaction in turn, and lets another one take the payment.
async fn each_message(
    lab: &Lab,
    fixture: &Fixture,
    other: &Client,
    accounts: &[i64],
    connection: &mut PgConnection,
) -> anyhow::Result<()> {
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = named(&proxy.url(fixture.database.url())?, "victim")?;
    let (mut victim, client) = start(fixture.serve().env("DATABASE_URL", url)).await?;
    let payment = |key| Payment { key, from: accounts[0], to: accounts[1], cents: 1 };
    let (mut rows, mut not_once, mut undone, mut done) = (Vec::new(), 0, 0, 0);
    let mut was_the_last = false;
    let mut at = "none is open";
    for message in 1..=30 {
        lab.progress(message, 7, "kills after each message");
        // A connection is there, and its statements are prepared.
        let warm = client.send_until_decided(&payment(format!("warm-{message}"))).await?;
        ensure!(warm.status() == 201, "{}: {}", warm.status(), warm.text().await?);
        let payment = payment(format!("message-{message}"));
        let held = proxy.at_message(proxy.messages() + message, Side::After);
        let sending = {
            let (client, payment) = (client.clone(), payment.clone());
            tokio::spawn(async move { said(client.send(&payment).await?).await })
        };
        let abort = sending.abort_handle();
        let held = tokio::select! {
            // First: when the last message is caught, its answer may be there too before we look.
            biased;
            held = held => held?,
            // There was no such message: the transaction has fewer.
            answer = sending => {
                let (status, body) = answer.context("it panicked")??;
                ensure!(status == 201, "{status}: {body}");
                was_the_last = true;
                break;
            }
        };
        at = standing(connection, at).await?;
        victim.kill().await?;
        abort.abort();
        drop(held);
        gone(connection).await?;
        let before = transfers(connection, &payment.key).await?;
        let status = other.send_until_decided(&payment).await?.status();
        let after = transfers(connection, &payment.key).await?;
        not_once += u64::from(status != 201 || after != 1);
        undone += u64::from(before == 0);
        done += u64::from(before == 1);
        rows.push(vec![
            message.to_string(),
            at.to_owned(),
            before.to_string(),
            status.as_str().to_owned(),
            after.to_string(),
        ]);
        victim.restart().await?;
    }
    let head =
        ["killed after message", "at that moment at", "transfers left", "retry", "transfers then"];
    lab.table("One payment, killed after each of its messages to PostgreSQL", &head, rows);
    // Of the four before the commit. After the last of them the commit is on its way already, and still arrives.
    lab.check("kills after which nothing was left of it", "3 or more", undone, undone >= 3);
    lab.check("kills after which it was made, and not answered", "1 or more", done, done >= 1);
    lab.check_eq("of all these, payments that were not made once", 0, not_once);
    // Otherwise the loop has ended first, and some message was never killed at.
    lab.check_eq("and a payment has no message beyond these", true, was_the_last);
    Ok(())
}

/// Where the victim's transaction stands, now that its last message has been passed on. PostgreSQL may take a
/// moment to read it; that it stands where it stood before is possible too (a message that only asks whether
/// the connection lives).
async fn standing(
    connection: &mut PgConnection,
    before: &'static str,
) -> anyhow::Result<&'static str> {
    let mut step = before;
    for _ in 0..100 {
        let open = open_transactions(connection, "victim").await?;
        step = match open.first() {
            Some(open) if !open.done => continue,
            Some(open) => open.step,
            None => "none is open",
        };
        if step != before {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(step)
}

/// A payment for which there is no money, and which is sent again when there is.
async fn refused(lab: &Lab, client: &Client, rich: i64) -> anyhow::Result<()> {
    let poor = client.open(0).await?;
    let payment = |key: &str, from, to| Payment { key: key.to_owned(), from, to, cents: 5 };
    let mut seen = Vec::new();
    for payment in [
        payment("refused", poor, rich),
        payment("wages", rich, poor),
        payment("refused", poor, rich),
        payment("another", poor, rich),
    ] {
        seen.push(client.send_until_decided(&payment).await?.status().as_str().to_owned());
    }
    lab.check_eq(
        "refused for lack of money; money comes; sent again; as another payment",
        "409, 201, 409, 201".to_owned(),
        seen.join(", "),
    );
    Ok(())
}

/// Waits until PostgreSQL has noticed that the victim is no more.
async fn gone(connection: &mut PgConnection) -> anyhow::Result<()> {
    let query = "select count(*) from pg_stat_activity \
                 where application_name = 'victim' and datname = current_database()";
    for _ in 0..4_000 {
        let left: i64 = sqlx::query_scalar(query).fetch_one(&mut *connection).await?;
        if left == 0 {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
    bail!("a killed process keeps its connection")
}

/// How many transfers there are under this key: none or one, or the schema is broken too.
async fn transfers(connection: &mut PgConnection, key: &str) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar(
        r#"
        select count(*)
        from idempotency_keys
        join transfers on transfers.id = idempotency_keys.number
        where scope = 'POST /transfers' and key = $1
        "#,
    );
    Ok(count.bind(key).fetch_one(connection).await?)
}
