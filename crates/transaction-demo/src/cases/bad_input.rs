//! What a client may send by mistake or on purpose, and what it gets.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use reqwest::{Method, header::HeaderValue};
use serde_json::json;

use super::{MOST, client::Client};
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, list, status},
    http::{invalid, not_allowed, not_found, problem, refused},
    target::Target,
};

cases! {
    Plain a_page_that_cannot_be_is_refused: "GET /accounts/{id}/entries: 422 that names limit if it is not 1 to 200; 400 for what is no number, and for a parameter that there is not", "A page of a million entries is an attack, and a typing error should be told.";
    Plain a_key_is_needed: "POST /transfers or POST /accounts without Idempotency-Key: 400, and `detail` names the header", "What cannot be repeated safely will be done twice one day.";
    Plain a_bad_key_is_refused: "A key that is empty, longer than 255 characters, not visible ASCII, or there twice: 400; also if a proxy has merged two keys into `k,k`", "With two keys, the next attempt might be found under the other one.";
    Plain a_transfer_that_makes_no_sense_is_refused: "A transfer to the same account, to or from an account that there is not, or to or from account 0: 422 that names from or to", "Nothing may be moved, and the client has to know which account is wrong.";
    Plain an_amount_that_is_none_is_refused: "amount_cents that is not a whole number from 1 to 9007199254740991: 422 or 400", "A negative amount is a way to take money; 1.5 and 1e400 are ways to lose it.";
    Plain an_account_that_makes_no_sense_is_refused: "POST /accounts with a bad owner or balance: 422 that names owner or balance_cents", "A name has to be shown on one line, and nobody starts in debt.";
    Plain a_body_that_is_none_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain an_array_moves_no_money: "400 for the values of a transfer in an array, in any order, and no cent is moved", "Some libraries take an array for an object, by the order of its fields: who pays whom is then a matter of luck.";
    Plain what_is_not_there_is_not_found: "An account or a transfer that there is not, account 0, or a string that is no number: 404", "Paths are input too.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
}

async fn a_page_that_cannot_be_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.open(1).await?;
    for limit in ["0", "201", "4000000000"] {
        let path = format!("accounts/{ada}/entries?limit={limit}");
        invalid(target.get(&path).await?, "limit").await?;
    }
    for query in
        ["limit=-1", "limit=x", "limt=5", "after=x", "after=99999999999999999999", "after=%ff"]
    {
        let response = target.get(&format!("accounts/{ada}/entries?{query}")).await?;
        problem(response, 400).await?;
    }
    let beyond = target.get(&format!("accounts/{ada}/entries?after={}", i64::MAX)).await?;
    let beyond = json_of(beyond, 200).await?;
    let empty = list(&beyond, "entries")?.is_empty() && beyond["next"].is_null();
    expect(empty, "no entries and no next page after the last number", &beyond)
}

async fn a_key_is_needed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let transfer = json!({ "from": ada, "to": bob, "amount_cents": 5 });
    let account = json!({ "owner": "Ada", "balance_cents": 5 });
    for (path, body) in [("transfers", transfer), ("accounts", account)] {
        let request = target.request(Method::POST, path).json(&body);
        let problem = problem(target.send(request).await?, 400).await.context(path)?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        expect(detail.contains("Idempotency-Key"), "`detail` to name Idempotency-Key", &problem)?;
    }
    equal("the balance of who was to be paid", client.balance(bob).await?, 0)
}

async fn a_bad_key_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let transfer = json!({ "from": ada, "to": bob, "amount_cents": 5 });
    let long = "k".repeat(10_000);
    for key in [
        &b""[..],
        b" ",
        b"two words",
        b"k,k",
        b"\xff\xfe",
        "schl\u{fc}ssel".as_bytes(),
        long.as_bytes(),
    ] {
        let words = format!("for the key {:?}", String::from_utf8_lossy(&key[..key.len().min(40)]));
        let key = HeaderValue::from_bytes(key)?;
        let request = target
            .request(Method::POST, "transfers")
            .header("idempotency-key", key)
            .json(&transfer);
        problem(target.send(request).await?, 400).await.context(words)?;
    }
    let twice = target
        .request(Method::POST, "transfers")
        .header("idempotency-key", "a")
        .header("idempotency-key", "a");
    problem(target.send(twice.json(&transfer)).await?, 400).await.context("for two keys")?;
    equal("the balance of who was to be paid", client.balance(bob).await?, 0)?;
    let longest = "k".repeat(255 - client.key("").len());
    status(&client.pay(&longest, (ada, bob), 5).await?, 201).context("a key of 255 characters")
}

async fn a_transfer_that_makes_no_sense_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let wrong = [
        ((ada, ada), "to"),
        ((ada, MOST), "to"),
        ((MOST, bob), "from"),
        ((ada, i64::MAX), "to"),
        ((ada, -1), "to"),
        ((i64::MIN, bob), "from"),
        // The vault is nobody's.
        ((0, bob), "from"),
        ((ada, 0), "to"),
    ];
    for (n, ((from, to), field)) in wrong.into_iter().enumerate() {
        let response = client.pay(&format!("attmnsir-{n}"), (from, to), 1).await?;
        invalid(response, field).await.with_context(|| format!("from {from} to {to}"))?;
    }
    client.audit((ada, bob), (1_000, 0)).await
}

async fn an_amount_that_is_none_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    for cents in [0, -1, i64::MIN, i64::MAX, MOST + 1] {
        let response = client.pay("aatinir", (ada, bob), cents).await?;
        invalid(response, "amount_cents").await?;
    }
    for cents in [
        // Not 1.0 and 1e2: they are whole numbers, and many parsers of JSON do not tell how a number was written.
        "1.5",
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
        let request = target
            .request(Method::POST, "transfers")
            .header("idempotency-key", client.key("aatinir"));
        let response =
            target.send(request.header("content-type", "application/json").body(body)).await?;
        refused(response, &[400, 422]).await?;
    }
    client.paid("aatinir", (ada, bob), 5).await?;
    equal("the balance of who was paid 5", client.balance(bob).await?, 5)
}

async fn an_account_that_makes_no_sense_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "x".repeat(201);
    for owner in ["", "  ", "a\0b", "a\nb", "a\u{2028}b", &long] {
        let account = json!({ "owner": owner, "balance_cents": 1 });
        let response = target.send(client.opening().json(&account)).await?;
        invalid(response, "owner").await.with_context(|| format!("for the owner {owner:.20?}"))?;
    }
    for cents in [-1, i64::MIN, i64::MAX, MOST + 1] {
        let account = json!({ "owner": "Ada", "balance_cents": cents });
        let response = target.send(client.opening().json(&account)).await?;
        invalid(response, "balance_cents").await?;
    }
    for account in [
        json!({ "owner": 7, "balance_cents": 1 }),
        json!({ "owner": "Ada", "balance_cents": 1.5 }),
        json!({ "owner": "Ada", "balance_cents": "1" }),
        json!({ "owner": "Ada" }),
        json!({ "balance_cents": 1 }),
        json!({ "owner": "Ada", "balance_cents": 1, "id": 7 }),
    ] {
        let response = target.send(client.opening().json(&account)).await?;
        problem(response, 422).await?;
    }
    Ok(())
}

async fn a_body_that_is_none_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000_000, 0).await?;
    let account = json!({ "owner": "Ada", "balance_cents": 5 });
    refuses_bad_bodies(target, || client.opening(), &account).await?;
    let good = json!({ "from": ada, "to": bob, "amount_cents": 5 });
    let keys = AtomicU64::new(0);
    let request = || {
        let key = keys.fetch_add(1, Ordering::Relaxed);
        target
            .request(Method::POST, "transfers")
            .header("idempotency-key", client.key(&format!("abtinir-{key}")))
    };
    refuses_bad_bodies(target, request, &good).await?;
    for body in [
        json!({ "from": null, "to": bob, "amount_cents": 5 }),
        json!({ "from": ada, "to": "bob", "amount_cents": 5 }),
        json!({ "from": ada, "to": bob }),
        json!({ "from": ada, "to": bob, "amount_cents": 5, "fee_cents": 1 }),
    ] {
        problem(target.send(request().json(&body)).await?, 422).await?;
    }
    // One was good: the one with an odd header beside it.
    client.audit((ada, bob), (999_995, 5)).await
}

async fn an_array_moves_no_money(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000_000, 1_000_000).await?;
    let arrays = [
        json!([ada, bob, 2_500]),
        json!([bob, ada, 2_500]),
        json!([2_500, ada, bob]),
        json!([[ada, bob, 2_500]]),
        json!([{ "from": ada, "to": bob, "amount_cents": 2_500 }]),
    ];
    for (n, array) in arrays.into_iter().enumerate() {
        let key = client.key(&format!("aamnm-{n}"));
        let request = target.request(Method::POST, "transfers").header("idempotency-key", key);
        let request = request.json(&array);
        problem(target.send(request).await?, 400).await?;
    }
    client.audit((ada, bob), (1_000_000, 1_000_000)).await
}

async fn what_is_not_there_is_not_found(target: &Target) -> Outcome {
    for number in [
        "9007199254740991",
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
            problem(target.get(&path).await?, 404).await?;
        }
    }
    not_found(target, &["", "accounts/", "account", "accounts/1/entries/1", "transfers/1/entries"])
        .await?;
    Ok(())
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::GET, "accounts"),
            (Method::DELETE, "accounts/1"),
            (Method::PUT, "accounts/1"),
            (Method::POST, "accounts/1/entries"),
            (Method::GET, "transfers"),
            (Method::DELETE, "transfers/1"),
            (Method::POST, "healthz"),
        ],
    )
    .await
}
