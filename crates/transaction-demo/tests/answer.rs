//! Does the bank do what cannot be seen from outside, or not with the options that its table of calls (`conform`) is tried
//! with? At the other isolation levels, in its database, and when something fails.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use conform::http::{client, header, problem};
use futures_util::future::try_join_all;
use lab::{
    child::Child,
    database::Database,
    fault::{Fault, Proxy, Side},
    harness::{Outcome, Served, eventually, run},
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, error::DatabaseError};
use transaction_demo::MIGRATIONS;

fn main() -> ExitCode {
    run(transaction_demo::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let database = Database::fresh("transaction-demo", &MIGRATIONS).await?;
    let child = Child::serve("transaction-demo").database(&database).start().await?;
    Ok(Served::new(child, database))
}

lab::tests![
    at_the_other_levels_too_one_key_by_fifty_at_once_is_one_transfer,
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
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

/// A bank of the test's own, spoken to in its own words.
struct Api {
    child: Child,
    database: Database,
    http: reqwest::Client,
}

impl Api {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let database = Database::fresh("transaction-demo", &MIGRATIONS).await?;
        let child = Child::serve("transaction-demo").database(&database).args(arguments);
        Ok(Self { child: child.start().await?, database, http: client()? })
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        let url = format!("{}/{path}", self.child.url());
        Ok(self.http.request(method, url).send().await?)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.ask(Method::GET, path).await
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}/{path}", self.child.url()))
    }

    /// Opens an account that must be opened, and returns its number.
    async fn open(&self, balance_cents: i64) -> anyhow::Result<i64> {
        let account = json!({ "owner": "Ada", "balance_cents": balance_cents });
        let response = self.post("accounts").json(&account).send().await?;
        ensure!(response.status() == 201, "{account}: {}", response.text().await?);
        response.json::<Value>().await?["id"].as_i64().context("no id")
    }

    async fn two(&self, from: i64, to: i64) -> anyhow::Result<(i64, i64)> {
        Ok((self.open(from).await?, self.open(to).await?))
    }

    async fn pay(&self, key: &str, (from, to): (i64, i64), cents: i64) -> anyhow::Result<Response> {
        pay(&self.http, self.child.url(), key, (from, to), cents).await
    }

    /// Pays as a client does that takes "try again with the same key" at its word: a machine that is busy with
    /// other tests may need longer for a crowd than the bank waits.
    async fn pay_until_decided(
        &self,
        key: &str,
        accounts: (i64, i64),
        cents: i64,
    ) -> anyhow::Result<(u16, Value)> {
        eventually("it is decided", async || {
            let response = self.pay(key, accounts, cents).await?;
            let status = response.status().as_u16();
            let body = response.json().await?;
            Ok((status != 503).then_some((status, body)))
        })
        .await
    }

    async fn balance(&self, account: i64) -> anyhow::Result<i64> {
        let account: Value = self.get(&format!("accounts/{account}")).await?.json().await?;
        account["balance_cents"].as_i64().with_context(|| account.to_string())
    }

    /// All balances sum to zero with the vault's, and each is the sum of its entries.
    async fn audit(&self) -> Outcome {
        let pool = self.database.pool().await?;
        let (total, wrong): (i64, i64) = sqlx::query_as(
            r#"
            select
                sum(balance_cents)::bigint,
                count(*) filter (where balance_cents <> (
                    select coalesce(sum(amount_cents), 0)
                    from entries
                    where account_id = accounts.id
                ))
            from accounts
            "#,
        )
        .fetch_one(&pool)
        .await?;
        pool.close().await;
        ensure!((total, wrong) == (0, 0), "the books sum to {total}, {wrong} accounts are wrong");
        Ok(())
    }
}

async fn pay(
    http: &reqwest::Client,
    url: &str,
    key: &str,
    (from, to): (i64, i64),
    cents: i64,
) -> anyhow::Result<Response> {
    let transfer = json!({ "from": from, "to": to, "amount_cents": cents });
    let request = http.post(format!("{url}/transfers")).header("idempotency-key", key);
    Ok(request.json(&transfer).send().await?)
}

async fn at_the_other_levels_too_one_key_by_fifty_at_once_is_one_transfer() -> Outcome {
    for isolation in ["repeatable-read", "serializable"] {
        let api = Api::start(&["--isolation", isolation]).await?;
        let (ada, bob) = api.two(1_000, 0).await?;
        let answers =
            try_join_all((0..50).map(|_| api.pay_until_decided("once", (ada, bob), 7))).await?;
        for (status, body) in &answers {
            ensure!(*status == 201 && *body == answers[0].1, "{isolation}: {status} {body}");
        }
        ensure!((api.balance(ada).await?, api.balance(bob).await?) == (993, 7), "{isolation}");
        api.audit().await?;
    }
    Ok(())
}

async fn the_vault_has_an_end_too_and_an_opening_beyond_it_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    // 1,024 of the largest accounts.
    let pool = api.database.pool().await?;
    sqlx::query("update accounts set balance_cents = -9223372036854775807 where id = 0")
        .execute(&pool)
        .await?;
    pool.close().await;
    let account = json!({ "owner": "Ada", "balance_cents": 2 });
    problem(api.post("accounts").json(&account).send().await?, 409).await?;
    Ok(())
}

async fn when_serializable_an_account_wanted_by_many_is_never_overdrawn() -> Outcome {
    let api = Api::start(&["--isolation", "serializable"]).await?;
    let (ada, bob) = api.two(100, 0).await?;
    // Forty want three cents each, and there are a hundred.
    let statuses = try_join_all((0..40).map(|n| {
        let api = &api;
        async move {
            let key = format!("key-{n}");
            anyhow::Ok(api.pay_until_decided(&key, (ada, bob), 3).await?.0)
        }
    }))
    .await?;
    let of = |wanted| statuses.iter().filter(|&&status| status == wanted).count();
    ensure!((of(201), of(409)) == (33, 7), "{statuses:?}");
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (1, 99));
    api.audit().await
}

async fn the_database_refuses_what_the_code_could_forget() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(100, 0).await?;
    let created: Value = api.pay("k", (ada, bob), 40).await?.json().await?;
    let pool = api.database.pool().await?;
    let transfer = sqlx::query_scalar::<_, i64>(
        "insert into transfers (from_account, to_account, amount_cents) values (1, 2, 5) returning id",
    )
    .fetch_one(&pool)
    .await?;
    let paid = created["id"].as_i64().context("no id")?;
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
    api.audit().await
}

/// Starts a second process of the bank behind a proxy, and sends a payment that is held up with both accounts
/// locked. Returns what must live on meanwhile.
async fn held_half_way(
    api: &Api,
    accounts: (i64, i64),
) -> anyhow::Result<(Child, Proxy, lab::fault::Held, tokio::task::JoinHandle<Option<u16>>)> {
    let proxy = Proxy::to_url(api.database.url()).await?;
    let url = proxy.url(api.database.url())?;
    let other = Child::serve("transaction-demo").env("DATABASE_URL", url).start().await?;
    // Once before, so that a connection is there and its statements are prepared.
    ensure!(pay(&api.http, other.url(), "warm", accounts, 1).await?.status() == 201);
    // The fifth message from here is the credit, or, if the connection is tried first, the debit.
    let held = proxy.at_message(proxy.messages() + 5, Side::After);
    let (http, url) = (api.http.clone(), other.url().to_owned());
    let payment = tokio::spawn(async move {
        pay(&http, &url, "held", accounts, 10).await.ok().map(|answer| answer.status().as_u16())
    });
    let held = tokio::time::timeout(Duration::from_secs(20), held).await.context("not held")??;
    Ok((other, proxy, held, payment))
}

async fn a_payment_whose_process_died_half_way_is_made_by_the_next() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    let (mut other, _proxy, _held, payment) = held_half_way(&api, (ada, bob)).await?;
    ensure!(api.balance(ada).await? == 999, "nobody sees a half of it");
    other.kill().await?;
    ensure!(payment.await?.is_none(), "its client heard nothing");
    let (status, made) = api.pay_until_decided("held", (ada, bob), 10).await?;
    ensure!(status == 201, "{status} {made}");
    let again = api.pay_until_decided("held", (ada, bob), 10).await?;
    ensure!(again == (201, made), "{again:?}");
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (989, 11));
    api.audit().await
}

async fn a_process_that_hangs_half_way_does_not_keep_its_locks() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    let (_other, _proxy, _held, payment) = held_half_way(&api, (ada, bob)).await?;
    let begun = Instant::now();
    let status = api.pay("mine", (ada, bob), 20).await?.status();
    ensure!(status == 201, "{status} after {:?}", begun.elapsed());
    // What hung was rolled back, and its client is told to try again.
    let told = payment.await?;
    ensure!(told == Some(503), "{told:?}");
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (979, 21));
    api.audit().await
}

/// At these levels the row that it waited for has changed, and PostgreSQL refuses it with 40001.
async fn a_transfer_that_was_in_anothers_way_is_made_again() -> Outcome {
    for isolation in ["repeatable-read", "serializable"] {
        let api = Api::start(&["--isolation", isolation]).await?;
        let (ada, bob) = api.two(1_000, 0).await?;
        let mut other = PgConnection::connect(api.database.url()).await?;
        other.execute("begin").await?;
        let lock = sqlx::query("update accounts set owner = 'Ada L.' where id = $1").bind(ada);
        lock.execute(&mut other).await?;
        let commit_when_it_waits = async {
            eventually("the transfer waits for the other transaction", async || {
                let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                               and cardinality(pg_blocking_pids(pid)) > 0";
                let mut look = PgConnection::connect(api.database.url()).await?;
                let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut look).await?;
                Ok((waiting > 0).then_some(()))
            })
            .await?;
            Ok(other.execute("commit").await?)
        };
        let (response, _) = tokio::try_join!(api.pay("k", (ada, bob), 5), commit_when_it_waits)?;
        ensure!(response.status() == 201, "{isolation}: {}", response.text().await?);
        ensure!(api.balance(bob).await? == 5);
        api.audit().await?;
    }
    Ok(())
}

async fn a_lock_that_is_kept_is_waited_for_no_longer_than_the_bound() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    let mut other = PgConnection::connect(api.database.url()).await?;
    other.execute("begin").await?;
    sqlx::query("select from accounts where id = $1 for update")
        .bind(ada)
        .execute(&mut other)
        .await?;
    let begun = Instant::now();
    let response = api.pay("k", (ada, bob), 5).await?;
    ensure!(header(&response, "retry-after") == "1", "{response:?}");
    problem(response, 503).await?;
    // The bound is 4 s; a busy machine adds to it. Without one there would be no answer before the rollback below.
    ensure!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    ensure!(api.balance(ada).await? == 1_000, "readers do not wait");
    other.execute("rollback").await?;
    ensure!(api.pay_until_decided("k", (ada, bob), 5).await?.0 == 201);
    ensure!(api.balance(bob).await? == 5);
    api.audit().await
}

/// What the chapter says of `for no key update` and of `for update`.
async fn an_account_that_is_locked_can_still_be_referred_to() -> Outcome {
    let api = Api::start(&[]).await?;
    api.two(1_000, 0).await?;
    let mut one = PgConnection::connect(api.database.url()).await?;
    let mut two = PgConnection::connect(api.database.url()).await?;
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
    let api = Api::start(&[]).await?;
    let ada = api.open(1_000).await?;
    let mut connection = PgConnection::connect(api.database.url()).await?;
    connection.execute("begin").await?;
    connection.execute("update accounts set owner = 'Eve' where id = 1").await?;
    ensure!(connection.execute("select 1 / 0").await.is_err());
    connection.execute("commit").await.context("it says a word")?;
    let account: Value = api.get(&format!("accounts/{ada}")).await?.json().await?;
    ensure!(account["owner"] == "Ada", "{account}");
    Ok(())
}

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let database = Database::fresh("transaction-demo", &MIGRATIONS).await?;
    let proxy = Proxy::to_url(database.url()).await?;
    let url = proxy.url(database.url())?;
    let child = Child::serve("transaction-demo").env("DATABASE_URL", url).start().await?;
    let api = Api { child, database, http: client()? };
    let (ada, bob) = api.two(1_000, 0).await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let (key, begun) = (format!("{fault:?}"), Instant::now());
        let account = format!("accounts/{ada}");
        let (paid, shown, ready) =
            tokio::try_join!(api.pay(&key, (ada, bob), 5), api.get(&account), api.get("readyz"),)?;
        for response in [paid, shown, ready] {
            ensure!(header(&response, "retry-after") == "1", "{fault:?}: {response:?}");
            problem(response, 503).await?;
        }
        // The bound is 4 s; a busy machine adds to it. Without one, a black hole is waited for a quarter of an hour.
        ensure!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        ensure!(api.get("healthz").await?.status() == 200);
        proxy.heal();
        let (status, body) = api.pay_until_decided(&key, (ada, bob), 5).await?;
        ensure!(status == 201, "{fault:?}: {status} {body}");
    }
    ensure!(api.balance(bob).await? == 10);
    api.audit().await
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let mut api = Api::start(&[]).await?;
    ensure!(api.get("healthz").await?.status() == 200);
    ensure!(api.get("readyz").await?.status() == 200);
    let status = api.child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
