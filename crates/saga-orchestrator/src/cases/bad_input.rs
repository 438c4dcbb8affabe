//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use reqwest::{Method, header::HeaderValue};
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, changed, order};
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{status, status_in},
    http::{invalid, not_allowed, problem, refused},
    target::{Target, brief},
};

cases! {
    Plain an_order_without_a_usable_key_is_refused: "No Idempotency-Key, two, an empty one, one of more than 128 characters or of no text: 400", "A client that heard no answer could not ask again for an order without a key.";
    Plain a_body_that_is_no_order_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain every_field_of_an_order_is_checked: "POST /orders with a bad field: 422 that names it, as items[1].sku or address.country", "Numbers overflow, and what is stored today is printed on a label tomorrow.";
    Plain a_list_that_cannot_be_is_refused: "A status that is none, a parameter that there is not: 422", "What is ignored silently shows the wrong orders.";
    Plain bad_stock_is_refused: "PUT of the stock: 422 that names the quantity; 422, 404 or 400 for a string that cannot be a sku", "Stock below nothing sells what is not there.";
    Plain a_participant_refuses_bad_requests: "A participant's call with a bad field: 422 that names it; without a key: 400; with a payment method that there is not: 409", "A participant has other callers than our orchestrator.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
}

async fn an_order_without_a_usable_key_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let body = order(&client.name("aowaukir-book"));
    let send = async |keys: &[&[u8]]| {
        let mut request = target.request(Method::POST, "orders").json(&body);
        for key in keys {
            request = request.header("idempotency-key", HeaderValue::from_bytes(key)?);
        }
        target.send(request).await
    };
    let long = "k".repeat(129);
    let bad: [&[&[u8]]; 6] =
        [&[], &[b""], &[b"  "], &[b"\xff\xfe"], &[long.as_bytes()], &[b"a", b"b"]];
    for keys in bad {
        let words = || keys.iter().map(|key| String::from_utf8_lossy(key)).collect::<Vec<_>>();
        problem(send(keys).await?, 400)
            .await
            .with_context(|| format!("with the keys {:.40?}", words()))?;
    }
    let good = client.name("a key of its own, 1");
    status(&send(&[good.as_bytes()]).await?, 202).with_context(|| format!("{good:?} is a good key"))
}

async fn a_body_that_is_no_order_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, body) = (client.name("abtinoir"), order(&client.name("abtinoir-book")));
    let request = || target.request(Method::POST, "orders").header("idempotency-key", &key);
    refuses_bad_bodies(target, request, &body).await?;
    let good = body.to_string();
    for bad in [
        good.replace("2500", "\"2500\""),
        good.replace("2500", "25.5"),
        good.replace("2500", "1e400"),
        good.replace("2500", "99999999999999999999999"),
        good.replace("\"c-1\"", "null"),
        good.replace("customer_id", "customerid"),
        good.replace("{\"quantity\":2,", "{\"quantity\":2,\"quantity\":3,"),
        good.replace("\"city\":", "\"planet\":\"Earth\",\"city\":"),
    ] {
        assert_ne!(bad, good, "nothing was changed");
        let request = request().header("content-type", "application/json").body(bad);
        refused(target.send(request).await?, &[400, 422]).await?;
    }
    Ok(())
}

async fn every_field_of_an_order_is_checked(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, sku) = (client.name("efoaoic"), client.name("efoaoic-book"));
    let item = |sku: &str, quantity: i64| json!({ "sku": sku, "quantity": quantity });
    let many: Vec<_> = (0..101).map(|n| item(&format!("sku-{n}"), 1)).collect();
    let long = "x".repeat(201);
    let mut cases: Vec<(&str, Value, &str)> = vec![
        ("items", json!([]), "items"),
        ("items", json!(many), "items"),
        ("items", json!([item("book", 1), item("book", 2)]), "items"),
        ("customer_id", json!(""), "customer_id"),
        ("customer_id", json!("a\u{0}b"), "customer_id"),
        ("customer_id", json!("c".repeat(65)), "customer_id"),
        ("items.0.sku", json!("a b"), "items[0].sku"),
        ("items.0.sku", json!("../etc"), "items[0].sku"),
        ("items.0.sku", json!("."), "items[0].sku"),
        ("items.0.sku", json!(".."), "items[0].sku"),
        ("address.name", json!("A\u{2028}da"), "address.name"),
        ("address.name", json!("\u{200b}\u{feff}"), "address.name"),
        ("payment_method", json!(""), "payment_method"),
        ("address.name", json!(""), "address.name"),
        ("address.street", json!("a\r\nb"), "address.street"),
        ("address.city", json!(long), "address.city"),
        ("address.country", json!("GBR"), "address.country"),
        ("address.country", json!("gb"), "address.country"),
        ("address.country", json!("ÄÄ"), "address.country"),
    ];
    for number in [i64::MIN, -1, 0, 1_000_001, i64::MAX] {
        cases.push(("items.0.quantity", json!(number), "items[0].quantity"));
    }
    for number in [i64::MIN, -1, 0, 10_000_000_001, i64::MAX] {
        cases.push(("amount_cents", json!(number), "amount_cents"));
    }
    for (path, value, field) in cases {
        let words = format!("with {path} = {}", brief(value.to_string()));
        let response = client.post("orders", &key, &changed(order(&sku), path, value)).await?;
        invalid(response, field).await.context(words)?;
    }
    // Nothing of it was kept, so the key is free, and the next one works.
    client.place_order(&key, &order(&sku)).await.context("a good one under the same key")?;
    Ok(())
}

async fn a_list_that_cannot_be_is_refused(target: &Target) -> Outcome {
    for query in ["status=lost", "status=", "limit=1", "sort=id"] {
        problem(target.get(&format!("orders?{query}")).await?, 422).await?;
    }
    Ok(())
}

async fn bad_stock_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let good = format!("inventory/stock/{}", client.name("bsir-book"));
    for quantity in [i64::MIN, -1, 1_000_001, i64::MAX] {
        let put = target.request(Method::PUT, &good).json(&json!({ "quantity": quantity }));
        invalid(target.send(put).await?, "quantity").await?;
    }
    let long = "x".repeat(65);
    for sku in ["a%20b", "a%00b", "%ff%fe", long.as_str()] {
        let path = format!("inventory/stock/{sku}");
        let put = target.request(Method::PUT, &path).json(&json!({ "quantity": 1 }));
        // Some servers refuse bytes that cannot stand in a path before the program is asked.
        status_in(&target.send(put).await?, &[422, 404, 400])?;
        status_in(&target.get(&path).await?, &[404, 400])?;
    }
    let request = || target.request(Method::PUT, &good);
    refuses_bad_bodies(target, request, &json!({ "quantity": 1 })).await
}

async fn a_participant_refuses_bad_requests(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, sku) = (Uuid::new_v4(), client.name("aprbr-book"));
    let key = format!("{id}.bad");
    let charge = |amount: i64, method: &str| json!({ "order_id": id, "amount_cents": amount, "payment_method": method });
    for amount in [i64::MIN, -1, 0] {
        let response = client.post("payment/charge", &key, &charge(amount, "pm_card_visa")).await?;
        invalid(response, "amount_cents").await?;
    }
    let declined = client.post("payment/charge", &key, &charge(1, "pm_unheard_of")).await?;
    problem(declined, 409).await?;
    let reserve = json!({ "order_id": id, "items": [{ "sku": sku, "quantity": -1 }] });
    invalid(client.post("inventory/reserve", &key, &reserve).await?, "items[0].quantity").await?;
    let address = changed(order(&sku), "address.city", "")["address"].clone();
    let book = json!({ "order_id": id, "address": address });
    invalid(client.post("shipping/book", &key, &book).await?, "address.city").await?;
    let nobodys = json!({ "order_id": "1" });
    invalid(client.post("payment/refund", &key, &nobodys).await?, "order_id").await?;
    let good = json!({ "order_id": id });
    let without_key = target.post("payment/refund", &good).await?;
    problem(without_key, 400).await.context("without a key")?;
    let key = format!("{id}.good");
    let request = || target.request(Method::POST, "payment/refund").header("idempotency-key", &key);
    refuses_bad_bodies(target, request, &good).await
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::PUT, "orders"),
            (Method::DELETE, "orders/00000000-0000-7000-8000-000000000000"),
            (Method::GET, "orders/00000000-0000-7000-8000-000000000000/retry"),
            (Method::POST, "inventory/stock/book"),
            (Method::GET, "payment/charge"),
            (Method::PUT, "shipping/book"),
            (Method::POST, "healthz"),
        ],
    )
    .await
}
