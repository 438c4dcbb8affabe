//! The table of calls of the shop.

mod bad_input;
pub mod client;
mod crowd;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{ends_with, equal, expect, integer, json_of, list, same_fields, status, text},
    http::{header, lives_and_is_ready, problem},
    target::{Target, eventually},
};
use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::{Client, new_key, new_number};

cases! {
    Plain a_product_is_put_up_and_changed: "PUT /products/{id}: 200 and the product; GET: the same name and price; PUT again: the new one", "Whoever did not hear the answer sends it again.";
    Plain an_order_has_its_price_and_its_place: "POST /orders: 201, Location and the order; GET there: the same; three cost 5 % less, ten 10 %", "Five modules have to agree for it.";
    Plain the_same_key_again_is_the_same_order: "POST /orders with the same key and body: 201 and the same order; with another body: 422", "A client that did not hear the answer asks again, and must not pay twice.";
    Plain what_cannot_be_paid_is_declined: "POST /orders for more than 10000000 cents: 409", "The client has to say something else to its customer than: try again.";
    Plain a_history_has_names_and_payments: "GET /customers/{id}/history: the orders, the newest first, with names and payments", "It is a join over data of three modules.";
    Plain a_copy_catches_up: "GET /customers/{id}/history?by=copy: the same after a while", "A copy may be old, but not for ever.";
    Plain what_was_bought_together_is_recommended: "GET /products/{id}: after a while, what its buyers bought too", "An event that got lost would be missing here.";
    Plain the_topology_has_all_modules: "GET /topology: all five modules, healthy", "Whoever is woken at night looks here first.";
    Plain a_trace_is_told: "GET /trace/{id} after a call with this traceparent: its spans; and the answer has the trace in its traceparent", "Without it nobody knows which of the services was slow.";
    Plain a_malformed_trace_is_ignored: "A malformed traceparent: the call is answered, and begins a new trace", "A tool for finding errors must not make them.";
    Plain a_timeout_that_is_long_is_taken: "X-Timeout-Ms of an hour: 200", "A client may wait for as long as it likes; it gets no more than others.";
    Plain a_timeout_of_nothing_is_told: "X-Timeout-Ms: 0 on POST /orders: 503, and nothing is done", "Work that nobody waits for makes others wait.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [cases(), bad_input::cases(), crowd::cases()].concat(),
    }
}

async fn a_product_is_put_up_and_changed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("products/{}", new_number());
    for product in [
        json!({ "name": "tea", "cents": 1_000 }),
        json!({ "name": "Łapsang & Søn", "cents": 0 }),
        json!({ "name": "'; drop table products; --", "cents": 7 }),
    ] {
        let put = || target.request(Method::PUT, &path).json(&product);
        for _ in 0..2 {
            let seen = json_of(client.send(put).await?, 200).await?;
            same_fields(&seen, &product, &["name", "cents"])?;
            let page = json_of(client.get(&path).await?, 200).await?;
            same_fields(&page, &seen, &["id", "name", "cents"])?;
        }
    }
    Ok(())
}

async fn an_order_has_its_price_and_its_place(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer) = (client.put_up(33).await?, new_number());
    for (quantity, cents) in [(1, 33), (2, 66), (3, 94), (10, 297)] {
        let answer = client.buy(customer, id, quantity, &new_key()).await?;
        let location = header(&answer, "location").to_owned();
        let order = json_of(answer, 201).await?;
        let expected =
            json!({ "customer": customer, "product": id, "quantity": quantity, "cents": cents });
        same_fields(&order, &expected, &["customer", "product", "quantity", "cents"])?;
        let path = format!("/orders/{}", text(&order, "id")?);
        ends_with("the header `Location`", &location, &path)?;
        let at = text(&order, "created_at")?;
        let utc = OffsetDateTime::parse(at, &Rfc3339).is_ok_and(|at| at.offset().is_utc());
        expect(utc, "a time in RFC 3339 UTC in `created_at`", at)?;
        equal("the order", json_of(client.get(&path).await?, 200).await?, order.clone())?;
    }
    Ok(())
}

async fn the_same_key_again_is_the_same_order(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer, key) = (client.put_up(1_000).await?, new_number(), new_key());
    let first = json_of(client.buy(customer, id, 2, &key).await?, 201).await?;
    for _ in 0..2 {
        let again = json_of(client.buy(customer, id, 2, &key).await?, 201).await?;
        equal("the order for the same key", again, first.clone())?;
        problem(client.buy(customer, id, 3, &key).await?, 422).await?;
    }
    let history = client.history(customer, "batch").await?;
    equal("how many orders there are", history.as_array().map_or(0, Vec::len), 1)
}

async fn what_cannot_be_paid_is_declined(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer) = (client.put_up(10_000_000).await?, new_number());
    problem(client.buy(customer, id, 2, &new_key()).await?, 409).await?;
    status(&client.buy(customer, id, 1, &new_key()).await?, 201)
}

/// A customer with three orders of two products.
async fn three_orders(client: &Client) -> anyhow::Result<(i64, Vec<Value>)> {
    let (one, other) = (client.put_up(1_000).await?, client.put_up(500).await?);
    let customer = new_number();
    let mut orders = Vec::new();
    for product in [one, other, one] {
        orders.push(json_of(client.buy(customer, product, 1, &new_key()).await?, 201).await?);
    }
    orders.reverse();
    Ok((customer, orders))
}

/// The lines of a history are these orders, with names and payments.
fn are_these(lines: &Value, orders: &[Value]) -> Outcome {
    let lines = lines.as_array().cloned().unwrap_or_default();
    equal("how many orders there are", lines.len(), orders.len())?;
    for (line, order) in lines.iter().zip(orders) {
        same_fields(line, order, &["id", "product", "quantity", "cents", "created_at"])?;
        same_fields(line, &json!({ "name": "tea", "paid": true }), &["name", "paid"])?;
    }
    Ok(())
}

async fn a_history_has_names_and_payments(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (customer, orders) = three_orders(&client).await?;
    for by in ["loop", "batch"] {
        are_these(&client.history(customer, by).await?, &orders)?;
    }
    are_these(&client.history(new_number(), "batch").await?, &[])
}

async fn a_copy_catches_up(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (customer, orders) = three_orders(&client).await?;
    eventually("the copy has all names and payments", async || {
        Ok(are_these(&client.history(customer, "copy").await?, &orders).ok())
    })
    .await
}

async fn what_was_bought_together_is_recommended(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (_, orders) = three_orders(&client).await?;
    let (one, other) = (integer(&orders[0], "product")?, integer(&orders[1], "product")?);
    eventually("what was bought together is recommended", async || {
        let page = json_of(client.get(&format!("products/{one}")).await?, 200).await?;
        let items = page["recommendations"].as_array().cloned().unwrap_or_default();
        let expected = json!([{ "id": other, "name": "tea", "cents": 500 }]);
        Ok((json!(items) == expected).then_some(()))
    })
    .await
}

async fn the_topology_has_all_modules(target: &Target) -> Outcome {
    let client = Client::of(target);
    let topology = json_of(client.get("topology").await?, 200).await?;
    let modules = list(&topology, "modules")?;
    for name in ["catalogue", "pricing", "orders", "payments", "recommendations"] {
        let module = modules.iter().find(|it| it["module"] == name);
        let healthy = module.is_some_and(|it| it["healthy"] == true && it["urls"].is_array());
        expect(healthy, format!("the module {name}, healthy, with its `urls`"), &topology)?;
    }
    Ok(())
}

async fn a_trace_is_told(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000).await?;
    let trace = format!("{:032x}", u128::from(new_number().unsigned_abs()) << 64 | 7);
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let get =
        || target.request(Method::GET, &format!("products/{id}")).header("traceparent", &parent);
    let answer = client.send(get).await?;
    status(&answer, 200)?;
    let told = header(&answer, "traceparent").to_owned();
    let same = told.split('-').nth(1) == Some(trace.as_str());
    expect(same, format!("the trace {trace} in the header `traceparent`"), &told)?;
    let seen = json_of(client.get(&format!("trace/{trace}")).await?, 200).await?;
    let spans = list(&seen, "spans")?;
    let root = spans.iter().find(|it| it["parent"] == "00f067aa0ba902b7");
    let root = root.map_or(Value::Null, Clone::clone);
    expect(root.is_object(), "a span whose `parent` is the caller's", &seen)?;
    for field in ["id", "service", "name", "at"] {
        text(&root, field)?;
    }
    integer(&root, "micros").map(drop)
}

async fn a_malformed_trace_is_ignored(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000).await?;
    let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
    for bad in ["nonsense", "", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", &zeros] {
        let get =
            || target.request(Method::GET, &format!("products/{id}")).header("traceparent", bad);
        let answer = client.send(get).await?;
        status(&answer, 200)?;
        let told = header(&answer, "traceparent");
        let new = told.len() == 55 && told != bad;
        expect(new, "a new trace in the header `traceparent`", told)?;
    }
    Ok(())
}

async fn a_timeout_that_is_long_is_taken(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000).await?;
    for long in ["20000", "3600000", "9999999999"] {
        let get =
            || target.request(Method::GET, &format!("products/{id}")).header("x-timeout-ms", long);
        status(&client.send(get).await?, 200)?;
    }
    Ok(())
}

async fn a_timeout_of_nothing_is_told(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer) = (client.put_up(1_000).await?, new_number());
    let order = client.order(customer, id, 1, &new_key()).header("x-timeout-ms", "0");
    problem(target.send(order).await?, 503).await?;
    are_these(&client.history(customer, "batch").await?, &[])
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
