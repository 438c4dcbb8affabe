//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::status,
    http::{invalid, not_allowed, not_found, problem, refused},
    target::Target,
};
use reqwest::{Method, header::HeaderValue};
use serde_json::json;

use super::client::{Client, new_key, new_number};

cases! {
    Plain a_bad_number_is_not_found: "A product, order, customer or trace that cannot be: 404", "Paths are input too.";
    Plain a_bad_product_body_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_bad_order_body_is_refused: "The same for POST /orders", "Every call that takes a body is attacked.";
    Plain an_order_that_cannot_be_is_refused: "A quantity of 0, 101 or 1.5, a customer of 0: 422 that names it; no such product: 404", "A quantity below zero would pay the customer.";
    Plain a_bad_key_is_refused: "No Idempotency-Key, two, or a bad one: 400", "Without a key, whoever asks again pays twice.";
    Plain a_bad_timeout_is_refused: "X-Timeout-Ms that is no whole number, or is there twice: 400", "A time that is not understood would be taken for none.";
    Plain a_bad_query_is_refused: "A history by something else, or with another query: 400", "A misspelt word must not be taken for the default.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not: 404", "An everyday event, and no error of the server.";
}

async fn a_bad_number_is_not_found(target: &Target) -> Outcome {
    let long = "9".repeat(5_000);
    for shape in ["0", "-1", "x", "%20", "%00", "1e3", "01", "99999999999999999999", "'--", &long] {
        for path in ["products/{}", "orders/{}", "customers/{}/history", "trace/{}"] {
            let path = path.replace("{}", shape);
            not_found(target, &[&path]).await.with_context(|| format!("for {path:.60}"))?;
        }
    }
    let free = format!("products/{}", new_number());
    let nobody = format!("trace/{:032x}", new_number());
    not_found(target, &[&free, &nobody, "orders/00000000-0000-4000-8000-000000000000"]).await?;
    // Bytes that are no text: nobody has to make sense of them.
    refused(target.get("products/%ff%fe").await?, &[400, 404]).await
}

async fn a_bad_product_body_is_refused(target: &Target) -> Outcome {
    let path = format!("products/{}", new_number());
    let request = || target.request(Method::PUT, &path);
    let good = json!({ "name": "tea", "cents": 1_000 });
    refuses_bad_bodies(target, request, &good).await?;
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("a\nb")),
        ("name", json!("x".repeat(201))),
        ("cents", json!(-1)),
        ("cents", json!(1e300)),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        invalid(target.send(request().json(&bad)).await?, field).await?;
    }
    Ok(())
}

async fn a_bad_order_body_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000).await?;
    let request = || target.request(Method::POST, "orders").header("idempotency-key", new_key());
    let good = json!({ "customer": new_number(), "product": id, "quantity": 1 });
    refuses_bad_bodies(target, request, &good).await
}

async fn an_order_that_cannot_be_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer) = (client.put_up(1_000).await?, new_number());
    for (field, value) in [
        ("quantity", json!(0)),
        ("quantity", json!(-1)),
        ("quantity", json!(101)),
        ("quantity", json!(1.5)),
        ("quantity", json!(1e300)),
        ("customer", json!(0)),
    ] {
        let mut order = json!({ "customer": customer, "product": id, "quantity": 1 });
        order[field] = value;
        let post = target.request(Method::POST, "orders").json(&order);
        let response = target.send(post.header("idempotency-key", new_key())).await?;
        invalid(response, field).await.with_context(|| order.to_string())?;
    }
    problem(client.buy(customer, new_number(), 1, &new_key()).await?, 404).await.map(drop)
}

async fn a_bad_key_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer) = (client.put_up(1_000).await?, new_number());
    let long = "k".repeat(256);
    let order = json!({ "customer": customer, "product": id, "quantity": 1 });
    let request = || target.request(Method::POST, "orders").json(&order);
    problem(target.send(request()).await?, 400).await.context("without a key")?;
    for key in [&b""[..], b"two words", b"k,k", b"\xff\xfe", "ä".as_bytes(), long.as_bytes()] {
        let keyed = request().header("idempotency-key", HeaderValue::from_bytes(key)?);
        let words = || format!("for the key {:.40?}", String::from_utf8_lossy(key));
        problem(target.send(keyed).await?, 400).await.with_context(words)?;
    }
    let twice = request().header("idempotency-key", "a").header("idempotency-key", "a");
    problem(target.send(twice).await?, 400).await.context("for two keys")?;
    let longest = format!("{}{}", "k".repeat(239), new_key());
    status(&client.buy(customer, id, 1, &longest).await?, 201)
}

async fn a_bad_timeout_is_refused(target: &Target) -> Outcome {
    let id = Client::of(target).put_up(1_000).await?;
    let get = || target.request(Method::GET, &format!("products/{id}"));
    for bad in ["", "soon", "-1", "1.5", "1e3", "99999999999999999999999"] {
        let get = get().header("x-timeout-ms", bad);
        problem(target.send(get).await?, 400).await.with_context(|| format!("for {bad:?}"))?;
    }
    let twice = get().header("x-timeout-ms", "500").header("x-timeout-ms", "500");
    problem(target.send(twice).await?, 400).await.map(drop)
}

async fn a_bad_query_is_refused(target: &Target) -> Outcome {
    for query in ["by=bach", "by=", "limit=3", "by=batch&by=copy"] {
        let answer = target.get(&format!("customers/1/history?{query}")).await?;
        problem(answer, 400).await.with_context(|| query.to_owned())?;
    }
    Ok(())
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let calls = [
        (Method::DELETE, "products/1"),
        (Method::GET, "orders"),
        (Method::POST, "customers/1/history"),
        (Method::PUT, "topology"),
        (Method::POST, "healthz"),
    ];
    not_allowed(target, &calls).await
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["nothing", "products", "products/", "products/1/price", "customers/1"])
        .await
}
