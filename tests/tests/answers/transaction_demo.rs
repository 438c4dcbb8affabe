//! Does the bank do what its table of calls says? Over HTTP, as its clients would.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use lab::{
    child::Child,
    database::Database,
    fault::{Fault, Proxy, Side},
};
use reqwest::{Method, RequestBuilder, Response, header::HeaderValue};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, error::DatabaseError};
use transaction_demo::MIGRATIONS;

use crate::{
    http::{client, header, invalid, problem, refuses_bad_bodies},
    support::{Outcome, eventually, tests},
};

tests![
    an_account_is_opened_and_can_be_looked_at,
    a_transfer_moves_money,
    a_transfer_can_be_looked_at,
    entries_come_in_pages_and_sum_to_the_balance,
    a_page_that_cannot_be_is_refused,
    the_same_key_again_gets_the_same_answer_and_moves_nothing,
    the_same_key_by_fifty_at_once_is_one_transfer,
    the_same_key_at_once_with_two_bodies_is_one_transfer_and_one_refusal,
    the_same_key_with_another_body_is_refused,
    the_same_body_in_other_words_is_the_same,
    a_key_is_needed,
    a_bad_key_is_refused,
    more_than_there_is_cannot_be_paid,
    a_refusal_stays_the_answer_of_its_key,
    a_mistake_does_not_use_up_the_key,
    a_transfer_that_makes_no_sense_is_refused,
    an_amount_that_is_none_is_refused,
    an_account_that_makes_no_sense_is_refused,
    an_account_holds_no_more_than_an_account_can,
    a_body_that_is_none_is_refused,
    what_is_not_there_is_not_found,
    a_wrong_method_is_not_allowed,
    an_account_wanted_by_many_is_never_overdrawn,
    transfers_in_both_directions_all_succeed,
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

    /// The amounts of all entries of an account, page by page.
    async fn amounts(&self, account: i64) -> anyhow::Result<Vec<i64>> {
        let mut amounts = Vec::new();
        let mut next = Some(format!("/accounts/{account}/entries"));
        while let Some(path) = next {
            let page: Value = self.get(&path[1..]).await?.json().await?;
            for entry in page["entries"].as_array().with_context(|| page.to_string())? {
                amounts.push(entry["amount_cents"].as_i64().context("no amount")?);
            }
            next = page["next"].as_str().map(str::to_owned);
        }
        Ok(amounts)
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

async fn an_account_is_opened_and_can_be_looked_at() -> Outcome {
    let api = Api::start(&[]).await?;
    for (owner, cents) in [("Ada", 12_345), ("Łukasz & Søn", 0), ("Max", 9_007_199_254_740_991_i64)]
    {
        let account = json!({ "owner": owner, "balance_cents": cents });
        let created = api.post("accounts").json(&account).send().await?;
        ensure!(created.status() == 201, "{}", created.text().await?);
        let location = header(&created, "location").to_owned();
        let body: Value = created.json().await?;
        ensure!(body["owner"] == owner && body["balance_cents"] == cents, "{body}");
        ensure!(location == format!("/accounts/{}", body["id"]), "{location}: {body}");
        let format = &time::format_description::well_known::Rfc3339;
        let at = body["created_at"].as_str().unwrap_or_default();
        ensure!(time::OffsetDateTime::parse(at, format)?.offset().is_utc(), "{at}");
        let shown: Value = api.get(&location[1..]).await?.json().await?;
        ensure!(shown == body, "{shown} is not {body}");
    }
    api.audit().await
}

async fn a_transfer_moves_money() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(10_000, 500).await?;
    let response = api.pay("a", (ada, bob), 2_500).await?;
    ensure!(response.status() == 201, "{}", response.text().await?);
    let location = header(&response, "location").to_owned();
    let body: Value = response.json().await?;
    ensure!(location == format!("/transfers/{}", body["id"]), "{location}: {body}");
    ensure!(body["from"] == ada && body["to"] == bob && body["amount_cents"] == 2_500, "{body}");
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (7_500, 3_000));
    // Back again, to the last cent.
    ensure!(api.pay("b", (bob, ada), 3_000).await?.status() == 201);
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (10_500, 0));
    api.audit().await
}

async fn a_transfer_can_be_looked_at() -> Outcome {
    let api = Api::start(&[]).await?;
    let accounts = api.two(100, 0).await?;
    let created = api.pay("a", accounts, 1).await?;
    let location = header(&created, "location").to_owned();
    let created: Value = created.json().await?;
    let shown: Value = api.get(&location[1..]).await?.json().await?;
    ensure!(shown == created, "{shown} is not {created}");
    Ok(())
}

async fn entries_come_in_pages_and_sum_to_the_balance() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    for cents in 1..=6 {
        api.pay(&format!("key-{cents}"), (ada, bob), cents).await?;
    }
    // The opening is an entry too.
    ensure!(api.amounts(ada).await? == [1_000, -1, -2, -3, -4, -5, -6]);
    ensure!(api.amounts(bob).await? == [1, 2, 3, 4, 5, 6]);
    let (mut path, mut sizes, mut transfers) =
        (format!("/accounts/{bob}/entries?limit=4"), Vec::new(), Vec::new());
    loop {
        let page: Value = api.get(&path[1..]).await?.json().await?;
        let entries = page["entries"].as_array().with_context(|| page.to_string())?;
        sizes.push(entries.len());
        transfers.extend(entries.iter().map(|entry| entry["transfer"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut path);
    }
    ensure!(sizes == [4, 2], "{sizes:?}");
    for transfer in transfers {
        let transfer: Value = api.get(&format!("transfers/{transfer}")).await?.json().await?;
        ensure!(transfer["from"] == ada && transfer["to"] == bob, "{transfer}");
    }
    api.audit().await
}

async fn a_page_that_cannot_be_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let ada = api.open(1).await?;
    for limit in ["0", "201", "4000000000"] {
        let path = format!("accounts/{ada}/entries?limit={limit}");
        invalid(api.get(&path).await?, "limit").await.context(limit)?;
    }
    for query in ["limit=-1", "limit=x", "after=x", "after=99999999999999999999", "after=%ff"] {
        let response = api.get(&format!("accounts/{ada}/entries?{query}")).await?;
        problem(response, 400).await.context(query)?;
    }
    let beyond: Value =
        api.get(&format!("accounts/{ada}/entries?after={}", i64::MAX)).await?.json().await?;
    ensure!(beyond == json!({ "entries": [], "next": null }), "{beyond}");
    Ok(())
}

async fn the_same_key_again_gets_the_same_answer_and_moves_nothing() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(100, 0).await?;
    let first = api.pay("rent", (ada, bob), 60).await?;
    let (location, first) = (header(&first, "location").to_owned(), first.json::<Value>().await?);
    for _ in 0..3 {
        // There would not be enough money for a second one.
        let again = api.pay("rent", (ada, bob), 60).await?;
        ensure!(again.status() == 201 && header(&again, "location") == location);
        let again: Value = again.json().await?;
        ensure!(again == first, "{again} is not {first}");
    }
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (40, 60));
    ensure!(api.amounts(bob).await? == [60]);
    // Another key is another payment.
    ensure!(api.pay("rent-2", (ada, bob), 40).await?.status() == 201);
    api.audit().await
}

async fn the_same_key_by_fifty_at_once_is_one_transfer() -> Outcome {
    for isolation in ["read-committed", "repeatable-read", "serializable"] {
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

async fn the_same_key_at_once_with_two_bodies_is_one_transfer_and_one_refusal() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    for round in 0..10 {
        let key = format!("key-{round}");
        let (one, two) =
            tokio::try_join!(api.pay(&key, (ada, bob), 1), api.pay(&key, (ada, bob), 2))?;
        let mut statuses = [one.status().as_u16(), two.status().as_u16()];
        statuses.sort_unstable();
        ensure!(statuses == [201, 422], "{statuses:?}");
    }
    ensure!(api.amounts(bob).await?.len() == 10);
    api.audit().await
}

async fn the_same_key_with_another_body_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    let eve = api.open(1_000).await?;
    ensure!(api.pay("k", (ada, bob), 10).await?.status() == 201);
    for ((from, to), cents) in [((ada, bob), 11), ((ada, eve), 10), ((bob, ada), 10)] {
        problem(api.pay("k", (from, to), cents).await?, 422).await?;
    }
    // A key is a name, letter by letter.
    ensure!(api.pay("K", (ada, bob), 11).await?.status() == 201);
    ensure!(api.balance(ada).await? == 979 && api.balance(eve).await? == 1_000);
    Ok(())
}

async fn the_same_body_in_other_words_is_the_same() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    let send = async |body: String| {
        let request = api.post("transfers").header("idempotency-key", "words");
        let response = request.header("content-type", "application/json").body(body).send().await?;
        ensure!(response.status() == 201, "{}", response.text().await?);
        Ok(response.json::<Value>().await?)
    };
    let one = send(format!(r#"{{"from":{ada},"to":{bob},"amount_cents":5}}"#)).await?;
    let two = send(format!(" {{ \"amount_cents\" : 5, \"to\":{bob},\n\"from\":{ada} }} ")).await?;
    ensure!(one == two, "{one}, {two}");
    ensure!(api.balance(bob).await? == 5);
    Ok(())
}

async fn a_key_is_needed() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    let transfer = json!({ "from": ada, "to": bob, "amount_cents": 5 });
    let problem = problem(api.post("transfers").json(&transfer).send().await?, 400).await?;
    let detail = problem["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("Idempotency-Key"), "{problem}");
    ensure!(api.balance(bob).await? == 0);
    Ok(())
}

async fn a_bad_key_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    let transfer = json!({ "from": ada, "to": bob, "amount_cents": 5 });
    let long = "k".repeat(10_000);
    for key in
        [&b""[..], b" ", b"two words", b"\xff\xfe", "schl\u{fc}ssel".as_bytes(), long.as_bytes()]
    {
        let words = String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned();
        let key = HeaderValue::from_bytes(key)?;
        let request = api.post("transfers").header("idempotency-key", key).json(&transfer);
        problem(request.send().await?, 400).await.context(words)?;
    }
    let twice = api.post("transfers").header("idempotency-key", "a").header("idempotency-key", "a");
    problem(twice.json(&transfer).send().await?, 400).await?;
    ensure!(api.balance(bob).await? == 0);
    // The longest is good, and after all that the bank still works.
    ensure!(api.pay(&"k".repeat(255), (ada, bob), 5).await?.status() == 201);
    Ok(())
}

async fn more_than_there_is_cannot_be_paid() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(100, 0).await?;
    problem(api.pay("a", (ada, bob), 101).await?, 409).await?;
    problem(api.pay("b", (bob, ada), 1).await?, 409).await?;
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (100, 0));
    ensure!(api.pay("c", (ada, bob), 100).await?.status() == 201);
    problem(api.pay("d", (ada, bob), 1).await?, 409).await?;
    ensure!(api.amounts(ada).await? == [100, -100]);
    Ok(())
}

async fn a_refusal_stays_the_answer_of_its_key() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(10, 1_000).await?;
    problem(api.pay("early", (ada, bob), 50).await?, 409).await?;
    ensure!(api.pay("wages", (bob, ada), 500).await?.status() == 201);
    problem(api.pay("early", (ada, bob), 50).await?, 409).await?;
    problem(api.pay("early", (ada, bob), 5).await?, 422).await?;
    ensure!(api.pay("late", (ada, bob), 50).await?.status() == 201);
    ensure!(api.balance(ada).await? == 460);
    Ok(())
}

async fn a_mistake_does_not_use_up_the_key() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(10, 0).await?;
    invalid(api.pay("k", (ada, 999_999), 1).await?, "to").await?;
    invalid(api.pay("k", (999_999, bob), 1).await?, "from").await?;
    invalid(api.pay("k", (ada, bob), 0).await?, "amount_cents").await?;
    ensure!(api.pay("k", (ada, bob), 1).await?.status() == 201);
    Ok(())
}

async fn a_transfer_that_makes_no_sense_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    for ((from, to), field) in [
        ((ada, ada), "to"),
        ((ada, 999_999), "to"),
        ((999_999, bob), "from"),
        ((ada, i64::MAX), "to"),
        ((ada, -1), "to"),
        ((i64::MIN, bob), "from"),
        // The vault is nobody's.
        ((0, bob), "from"),
        ((ada, 0), "to"),
    ] {
        let response = api.pay("k", (from, to), 1).await?;
        invalid(response, field).await.with_context(|| format!("{from} to {to}"))?;
    }
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (1_000, 0));
    Ok(())
}

async fn an_amount_that_is_none_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 0).await?;
    for cents in [0, -1, i64::MIN, i64::MAX, 9_007_199_254_740_992] {
        let response = api.pay("k", (ada, bob), cents).await?;
        invalid(response, "amount_cents").await.context(cents.to_string())?;
    }
    for cents in [
        "1.5",
        "1.0",
        "1e2",
        "1e400",
        "-0.1",
        "99999999999999999999999",
        "\"5\"",
        "true",
        "null",
        "[5]",
        "NaN",
        "0x10",
        "05",
        "+5",
    ] {
        let body = format!(r#"{{"from":{ada},"to":{bob},"amount_cents":{cents}}}"#);
        let request = api.post("transfers").header("idempotency-key", "k");
        let response = request.header("content-type", "application/json").body(body).send().await?;
        let status = response.status().as_u16();
        ensure!(matches!(status, 400 | 422), "{cents}: {status}");
        problem(response, status).await.context(cents)?;
    }
    ensure!(api.pay("k", (ada, bob), 5).await?.status() == 201);
    ensure!(api.balance(bob).await? == 5);
    Ok(())
}

async fn an_account_that_makes_no_sense_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let long = "x".repeat(201);
    for owner in ["", "  ", "a\0b", "a\nb", &long] {
        let account = json!({ "owner": owner, "balance_cents": 1 });
        let response = api.post("accounts").json(&account).send().await?;
        invalid(response, "owner").await.with_context(|| format!("{owner:?}"))?;
    }
    for cents in [-1, i64::MIN, i64::MAX, 9_007_199_254_740_992] {
        let account = json!({ "owner": "Ada", "balance_cents": cents });
        let response = api.post("accounts").json(&account).send().await?;
        invalid(response, "balance_cents").await.context(cents.to_string())?;
    }
    for account in [
        json!({ "owner": 7, "balance_cents": 1 }),
        json!({ "owner": "Ada", "balance_cents": 1.5 }),
        json!({ "owner": "Ada", "balance_cents": "1" }),
        json!({ "owner": "Ada" }),
        json!({ "balance_cents": 1 }),
        json!({ "owner": "Ada", "balance_cents": 1, "id": 7 }),
    ] {
        let response = api.post("accounts").json(&account).send().await?;
        problem(response, 422).await.context(account)?;
    }
    Ok(())
}

async fn an_account_holds_no_more_than_an_account_can() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(9_007_199_254_740_991, 1).await?;
    problem(api.pay("k", (bob, ada), 1).await?, 409).await?;
    ensure!(api.balance(bob).await? == 1, "nothing is lost");
    ensure!(api.pay("l", (ada, bob), 9_007_199_254_740_990).await?.status() == 201);
    // The vault's balance has an end too: 1,024 such accounts.
    let pool = api.database.pool().await?;
    sqlx::query("update accounts set balance_cents = -9223372036854775807 where id = 0")
        .execute(&pool)
        .await?;
    pool.close().await;
    let account = json!({ "owner": "Ada", "balance_cents": 2 });
    problem(api.post("accounts").json(&account).send().await?, 409).await?;
    Ok(())
}

async fn a_body_that_is_none_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000_000, 0).await?;
    let account = json!({ "owner": "Ada", "balance_cents": 5 });
    refuses_bad_bodies(|| api.post("accounts"), &account).await?;
    let good = json!({ "from": ada, "to": bob, "amount_cents": 5 });
    let keys = AtomicU64::new(0);
    let request = || {
        let key = keys.fetch_add(1, Ordering::Relaxed);
        api.post("transfers").header("idempotency-key", format!("key-{key}"))
    };
    refuses_bad_bodies(request, &good).await?;
    for body in [
        json!({ "from": null, "to": bob, "amount_cents": 5 }),
        json!({ "from": ada, "to": "bob", "amount_cents": 5 }),
        json!({ "from": ada, "to": bob }),
        json!({ "from": ada, "to": bob, "amount_cents": 5, "fee_cents": 1 }),
    ] {
        problem(request().json(&body).send().await?, 422).await.context(body)?;
    }
    // One was good: the one with an odd header beside it.
    ensure!(api.balance(bob).await? == 5, "{}", api.balance(bob).await?);
    api.audit().await
}

async fn what_is_not_there_is_not_found() -> Outcome {
    let api = Api::start(&[]).await?;
    api.open(5).await?;
    for number in [
        "999999",
        "0",
        "-1",
        "abc",
        "1.0",
        "01",
        "%2B1",
        "1%20",
        "%00",
        "9223372036854775808",
        "%ff",
        "1'%20or%201=1--",
    ] {
        for path in [
            format!("accounts/{number}"),
            format!("accounts/{number}/entries"),
            format!("transfers/{number}"),
        ] {
            problem(api.get(&path).await?, 404).await.context(path)?;
        }
    }
    for path in ["", "accounts/", "account", "accounts/1/entries/1", "transfers/1/entries"] {
        problem(api.get(path).await?, 404).await.context(path)?;
    }
    Ok(())
}

async fn a_wrong_method_is_not_allowed() -> Outcome {
    let api = Api::start(&[]).await?;
    for (method, path) in [
        (Method::GET, "accounts"),
        (Method::DELETE, "accounts/1"),
        (Method::PUT, "accounts/1"),
        (Method::POST, "accounts/1/entries"),
        (Method::GET, "transfers"),
        (Method::DELETE, "transfers/1"),
        (Method::POST, "healthz"),
    ] {
        let response = api.ask(method.clone(), path).await?;
        ensure!(!header(&response, "allow").is_empty(), "{method} {path}: no Allow");
        problem(response, 405).await.with_context(|| format!("{method} {path}"))?;
    }
    Ok(())
}

async fn an_account_wanted_by_many_is_never_overdrawn() -> Outcome {
    for isolation in ["read-committed", "serializable"] {
        let api = Api::start(&["--isolation", isolation]).await?;
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
        ensure!((of(201), of(409)) == (33, 7), "{isolation}: {statuses:?}");
        ensure!((api.balance(ada).await?, api.balance(bob).await?) == (1, 99), "{isolation}");
        api.audit().await?;
    }
    Ok(())
}

async fn transfers_in_both_directions_all_succeed() -> Outcome {
    let api = Api::start(&[]).await?;
    let (ada, bob) = api.two(1_000, 1_000).await?;
    let statuses = try_join_all((0..60).map(|n| {
        let (api, key) = (&api, format!("key-{n}"));
        let direction = if n % 2 == 0 { (ada, bob) } else { (bob, ada) };
        async move { anyhow::Ok(api.pay_until_decided(&key, direction, 10).await?.0) }
    }))
    .await?;
    ensure!(statuses.iter().all(|&status| status == 201), "{statuses:?}");
    ensure!((api.balance(ada).await?, api.balance(bob).await?) == (1_000, 1_000));
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
