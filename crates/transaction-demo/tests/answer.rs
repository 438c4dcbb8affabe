//! Does the bank do what cannot be seen from outside, or not with the options that its table of calls (`conform`) is tried
//! with? At the other isolation levels, in its database, and when something fails.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use conform::{
    http::{header, lives_and_is_ready, problem},
    target::Target,
};
use futures_util::future::try_join_all;
use lab::{
    child::Child,
    fault::{Fault, Held, Proxy, Side},
    harness::{Outcome, Served, eventually, run, somebody_waits},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor, error::DatabaseError};
use tokio::task::JoinHandle;
use transaction_demo::{
    cases::client::{Payment, said},
    experiments::fixture::{Fixture, start},
};

fn main() -> ExitCode {
    run(transaction_demo::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve().start().await?, fixture))
}

lab::tests![
    at_the_other_levels_too_one_key_by_fifty_at_once_is_one_transfer,
    a_key_that_named_an_account_too_early_never_pays_it,
    the_vault_has_an_end_too_and_an_opening_beyond_it_is_refused,
    when_serializable_an_account_wanted_by_many_is_never_overdrawn,
    the_database_refuses_what_the_code_could_forget,
    a_payment_whose_process_died_half_way_is_made_by_the_next,
    a_process_that_hangs_half_way_does_not_keep_its_locks,
    a_transfer_that_was_in_anothers_way_is_made_again,
    a_lock_that_is_kept_is_waited_for_no_longer_than_the_bound,
    an_account_that_is_locked_can_still_be_referred_to,
    a_commit_after_an_error_is_a_rollback_without_a_word,
    a_database_that_is_away_is_told_and_the_next_request_works,
    a_connection_that_turns_out_to_be_read_only_is_not_used_again,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

async fn at_the_other_levels_too_one_key_by_fifty_at_once_is_one_transfer() -> Outcome {
    for isolation in ["repeatable-read", "serializable"] {
        let fixture = Fixture::fresh().await?;
        let (_bank, client) = fixture.start(&["--isolation", isolation]).await?;
        let (ada, bob) = client.open_two(1_000, 0).await?;
        let answers = try_join_all(
            (0..50).map(async |_| said(client.pay("once", (ada, bob), 7).await?).await),
        );
        let answers = answers.await?;
        for (status, body) in &answers {
            ensure!(*status == 201 && *body == answers[0].1, "{isolation}: {status} {body}");
        }
        ensure!(client.balances((ada, bob)).await? == (993, 7), "{isolation}");
        fixture.audit().await?;
    }
    Ok(())
}

async fn a_key_that_named_an_account_too_early_never_pays_it() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let ada = client.open(1_000).await?;
    // The number of the next account, which there is not yet.
    let early = client.payment("early", (ada, ada + 1), 5);
    let first = said(client.send(&early).await?).await?;
    ensure!(first.0 == 422, "{first:?}");
    let bob = client.open(0).await?;
    ensure!(bob == ada + 1, "the next account is {bob}");
    let again = said(client.send(&early).await?).await?;
    ensure!(again == first, "{again:?}");
    ensure!(client.balances((ada, bob)).await? == (1_000, 0));
    fixture.audit().await
}

async fn the_vault_has_an_end_too_and_an_opening_beyond_it_is_refused() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    // 1,024 of the largest accounts.
    let pool = fixture.database.pool().await?;
    sqlx::query("update accounts set balance_cents = -9223372036854775807 where id = 0")
        .execute(&pool)
        .await?;
    pool.close().await;
    let account = json!({ "owner": "Ada", "balance_cents": 2 });
    problem(client.open_account(&account).await?, 409).await?;
    Ok(())
}

async fn when_serializable_an_account_wanted_by_many_is_never_overdrawn() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&["--isolation", "serializable"]).await?;
    let (ada, bob) = client.open_two(100, 0).await?;
    // Forty want three cents each, and there are a hundred.
    let statuses = try_join_all((0..40).map(async |n| {
        let answer = client.pay(&format!("key-{n}"), (ada, bob), 3).await?;
        anyhow::Ok(answer.status().as_u16())
    }))
    .await?;
    let of = |wanted| statuses.iter().filter(|&&status| status == wanted).count();
    ensure!((of(201), of(409)) == (33, 7), "{statuses:?}");
    ensure!(client.balances((ada, bob)).await? == (1, 99));
    fixture.audit().await
}

async fn the_database_refuses_what_the_code_could_forget() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let (ada, bob) = client.open_two(100, 0).await?;
    let paid = client.paid("k", (ada, bob), 40).await?;
    let pool = fixture.database.pool().await?;
    let transfer = sqlx::query_scalar::<_, i64>(
        "insert into transfers (from_account, to_account, amount_cents) values (1, 2, 5) returning id",
    )
    .fetch_one(&pool)
    .await?;
    let entries = "insert into entries (transfer_id, account_id, amount_cents) values";
    for (sql, code) in [
        (format!("update accounts set balance_cents = -1 where id = {ada}"), "23514"),
        (format!("{entries} ({transfer}, {ada}, 5)"), "23514"),
        (format!("{entries} ({transfer}, {ada}, -5), ({transfer}, {bob}, 4)"), "23514"),
        // Balanced, but this transfer has its entries already.
        (format!("{entries} ({paid}, {ada}, -5), ({paid}, {bob}, 5)"), "23505"),
        (format!("update entries set amount_cents = 1 where transfer_id = {paid}"), "23001"),
        (format!("delete from entries where transfer_id = {paid}"), "23001"),
        ("truncate entries".to_owned(), "23001"),
    ] {
        let outcome = sqlx::query(AssertSqlSafe(sql.clone())).execute(&pool).await;
        let error = outcome.err().with_context(|| format!("it is allowed: {sql}"))?;
        let seen = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
        ensure!(seen == code, "{sql}: {seen} {error}");
    }
    pool.close().await;
    fixture.audit().await
}

/// A second bank in the middle of a payment, with both accounts locked.
struct HalfWay {
    child: Child,
    payment: Payment,
    /// The status of its answer, if there is one.
    answer: JoinHandle<Option<u16>>,
    /// As long as these live, its transaction gets no further.
    _held: (Proxy, Held),
}

impl HalfWay {
    async fn begin(fixture: &Fixture, accounts: (i64, i64)) -> anyhow::Result<Self> {
        let proxy = Proxy::to_url(fixture.database.url()).await?;
        let url = proxy.url(fixture.database.url())?;
        let (child, client) = start(fixture.serve().env("DATABASE_URL", url)).await?;
        // Once before, so that a connection is there and its statements are prepared.
        client.paid("warm", accounts, 1).await?;
        // The fourth message from here moves the money, or, if the connection is tried first, locks the accounts.
        let held = proxy.at_message(proxy.messages() + 4, Side::After);
        let payment = client.payment("held", accounts, 10);
        let sent = payment.clone();
        let answer = tokio::spawn(async move {
            client.send(&sent).await.ok().map(|answer| answer.status().as_u16())
        });
        let held =
            tokio::time::timeout(Duration::from_secs(20), held).await.context("not held")??;
        Ok(Self { child, payment, answer, _held: (proxy, held) })
    }
}

async fn a_payment_whose_process_died_half_way_is_made_by_the_next() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let mut other = HalfWay::begin(&fixture, (ada, bob)).await?;
    ensure!(client.balance(ada).await? == 999, "nobody sees a half of it");
    other.child.kill().await?;
    ensure!(other.answer.await?.is_none(), "its client heard nothing");
    let made = said(client.send_until_decided(&other.payment).await?).await?;
    ensure!(made.0 == 201, "{made:?}");
    let again = said(client.send_until_decided(&other.payment).await?).await?;
    ensure!(again == made, "{again:?}");
    ensure!(client.balances((ada, bob)).await? == (989, 11));
    fixture.audit().await
}

async fn a_process_that_hangs_half_way_does_not_keep_its_locks() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let other = HalfWay::begin(&fixture, (ada, bob)).await?;
    let begun = Instant::now();
    let status = client.send(&client.payment("mine", (ada, bob), 20)).await?.status();
    ensure!(status == 201, "{status} after {:?}", begun.elapsed());
    // What hung was rolled back, and its client is told to try again.
    let told = other.answer.await?;
    ensure!(told == Some(503), "{told:?}");
    ensure!(client.balances((ada, bob)).await? == (979, 21));
    fixture.audit().await
}

/// At these levels the row that it waited for has changed, and PostgreSQL refuses it with 40001.
async fn a_transfer_that_was_in_anothers_way_is_made_again() -> Outcome {
    for isolation in ["repeatable-read", "serializable"] {
        let fixture = Fixture::fresh().await?;
        let (_bank, client) = fixture.start(&["--isolation", isolation]).await?;
        let (ada, bob) = client.open_two(1_000, 0).await?;
        let mut other = fixture.connect().await?;
        other.execute("begin").await?;
        let lock = sqlx::query("update accounts set owner = 'Ada L.' where id = $1").bind(ada);
        lock.execute(&mut other).await?;
        let commit_when_it_waits = async {
            let what = "the transfer waits for the other transaction";
            somebody_waits(what, &fixture.database).await?;
            Ok(other.execute("commit").await?)
        };
        let payment = client.payment("k", (ada, bob), 5);
        let (response, _) = tokio::try_join!(client.send(&payment), commit_when_it_waits)?;
        ensure!(response.status() == 201, "{isolation}: {}", response.text().await?);
        ensure!(client.balance(bob).await? == 5);
        fixture.audit().await?;
    }
    Ok(())
}

async fn a_lock_that_is_kept_is_waited_for_no_longer_than_the_bound() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let mut other = fixture.connect().await?;
    other.execute("begin").await?;
    sqlx::query("select from accounts where id = $1 for update")
        .bind(ada)
        .execute(&mut other)
        .await?;
    let begun = Instant::now();
    let payment = client.payment("k", (ada, bob), 5);
    let response = client.send(&payment).await?;
    ensure!(header(&response, "retry-after") == "1", "{response:?}");
    problem(response, 503).await?;
    // The bound is 4 s; a busy machine adds to it. Without one there would be no answer before the rollback below.
    ensure!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    ensure!(client.balance(ada).await? == 1_000, "readers do not wait");
    other.execute("rollback").await?;
    ensure!(client.send_until_decided(&payment).await?.status() == 201);
    ensure!(client.balance(bob).await? == 5);
    fixture.audit().await
}

/// What the chapter says of `for no key update` and of `for update`.
async fn an_account_that_is_locked_can_still_be_referred_to() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    client.open_two(1_000, 0).await?;
    let mut one = fixture.connect().await?;
    let mut two = fixture.connect().await?;
    two.execute("set lock_timeout = '200ms'").await?;
    let refer = "insert into transfers (from_account, to_account, amount_cents) values (1, 2, 1)";
    for (lock, expected) in [
        ("select id from accounts where id = 1 for no key update", None),
        ("select id from accounts where id = 1 for update", Some("55P03")),
    ] {
        one.execute("begin").await?;
        one.execute(lock).await?;
        two.execute("begin").await?;
        let error = two.execute(refer).await.err();
        let code = error.as_ref().and_then(|error| error.as_database_error()?.code());
        ensure!(code.as_deref() == expected, "{lock}: {error:?}");
        two.execute("rollback").await?;
        one.execute("rollback").await?;
    }
    Ok(())
}

/// Why the work of a transaction must return every error.
async fn a_commit_after_an_error_is_a_rollback_without_a_word() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let ada = client.open(1_000).await?;
    let mut connection = fixture.connect().await?;
    connection.execute("begin").await?;
    connection.execute("update accounts set owner = 'Eve' where id = 1").await?;
    ensure!(connection.execute("select 1 / 0").await.is_err());
    connection.execute("commit").await.context("it says a word")?;
    let account: Value = client.account(ada).await?.json().await?;
    ensure!(account["owner"] == "Ada", "{account}");
    Ok(())
}

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let (bank, client) = start(fixture.serve().env("DATABASE_URL", url)).await?;
    let health = Target::new(bank.url(), None)?;
    let (ada, bob) = client.open_two(1_000, 0).await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let (payment, begun) =
            (client.payment(&format!("{fault:?}"), (ada, bob), 5), Instant::now());
        let (paid, shown, ready) =
            tokio::try_join!(client.send(&payment), client.account(ada), health.get("readyz"))?;
        for response in [paid, shown, ready] {
            ensure!(header(&response, "retry-after") == "1", "{fault:?}: {response:?}");
            problem(response, 503).await?;
        }
        // The bound is 4 s; a busy machine adds to it. Without one, a black hole is waited for a quarter of an hour.
        ensure!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        ensure!(health.get("healthz").await?.status() == 200);
        proxy.heal();
        let (status, body) = said(client.send_until_decided(&payment).await?).await?;
        ensure!(status == 201, "{fault:?}: {status} {body}");
    }
    ensure!(client.balance(bob).await? == 10);
    fixture.audit().await
}

/// As when its server has become a standby: the next connection may lead to the new primary.
async fn a_connection_that_turns_out_to_be_read_only_is_not_used_again() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let (ada, bob) = client.open_two(1_000, 0).await?;
    // From before, so that it can still write.
    let mut connection = fixture.connect().await?;
    let database = format!("alter database \"{}\"", fixture.database.name());
    let demote = format!("{database} set default_transaction_read_only = on");
    connection.execute(AssertSqlSafe(demote)).await?;
    // Waits until each has ended (PostgreSQL 14).
    let cut_off = r#"
        select pg_terminate_backend(pid, 5000)
        from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend'
            and pid <> pg_backend_pid()
    "#;
    connection.execute(cut_off).await?;
    // It can be read, over a connection that stays in the pool.
    eventually("the bank has a new connection", async || {
        Ok((client.account(ada).await?.status() == 200).then_some(()))
    })
    .await?;
    let payment = client.payment("k", (ada, bob), 5);
    problem(client.send(&payment).await?, 503).await?;
    let promote = format!("{database} reset default_transaction_read_only");
    connection.execute(AssertSqlSafe(promote)).await?;
    let status = client.send_until_decided(&payment).await?.status();
    ensure!(status == 201, "{status}: the old connection is still used");
    ensure!(client.balances((ada, bob)).await? == (995, 5));
    fixture.audit().await
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut bank = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(bank.url(), None)?).await?;
    let status = bank.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
