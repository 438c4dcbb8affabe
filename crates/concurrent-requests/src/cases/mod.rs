//! The table of calls of the shop.

mod bad_input;
pub mod client;
mod crowd;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{ends_with, equal, expect, integer, json_of, same_fields, status, text},
    http::{header, lives_and_is_ready, media_type_is, problem},
    target::{Target, eventually},
};
use reqwest::Method;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::{Client, new_key, new_number};

cases! {
    Plain a_product_is_put_up_and_changed: "PUT /products/{id}: 200 and the product; GET: the same; PUT again: the new one", "Whoever did not hear the answer sends it again.";
    Plain a_price_is_at_most_the_products_and_stays: "GET /products/{id}/price: at most the product's cents, twice the same", "A price that changes while one looks is no price.";
    Plain an_order_takes_stock: "POST /orders: 201, Location and the order; GET there: the same; the stock is less by its quantity", "An order without stock is a promise that nobody can keep.";
    Plain the_same_key_again_is_the_same_order: "POST /orders with the same key and body: 201 and the same order, and no stock is taken; with another body: 422", "A client that did not hear the answer asks again, and must not buy two.";
    Plain what_is_sold_out_is_a_conflict: "POST /orders for more than is left: 409, and nothing is taken", "The client has to say something else to its customer than: try again.";
    Plain a_report_counts_the_orders_of_its_day: "GET /reports/{day}: all orders and items of the day", "It is what the shop is run by.";
    Plain a_report_can_be_a_job: "POST /reports/{day}: 202 and Location; GET there: done, with the report, after a while", "Nobody has to wait with an open connection.";
    Plain the_pressure_is_told: "GET /pressure and GET /metrics: 200, with what is at work, waits, was refused and may be", "Whoever is woken at night looks here first.";
    Plain a_deadline_in_the_future_is_taken: "X-Request-Deadline in twenty seconds, or in the year 9999: 200", "A client may wait for as long as it likes; it gets no more than others.";
    Plain a_deadline_that_has_passed_is_told: "X-Request-Deadline in the past: 503, and nothing is done", "Work that nobody waits for makes others wait.";
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
        json!({ "name": "tea", "cents": 1_000, "stock": 3 }),
        json!({ "name": "Łapsang & Søn", "cents": 0, "stock": 0 }),
        json!({ "name": "'; drop table products; --", "cents": 7, "stock": 1_000_000 }),
    ] {
        let put = || target.request(Method::PUT, &path).json(&product);
        for _ in 0..2 {
            let seen = json_of(client.send(put).await?, 200).await?;
            same_fields(&seen, &product, &["name", "cents", "stock"])?;
            equal("the product", json_of(client.get(&path).await?, 200).await?, seen)?;
        }
    }
    Ok(())
}

async fn a_price_is_at_most_the_products_and_stays(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 1).await?;
    let path = format!("products/{id}/price");
    let first = json_of(client.get(&path).await?, 200).await?;
    equal("the product", integer(&first, "product")?, id)?;
    let cents = integer(&first, "cents")?;
    expect((0..=1_000).contains(&cents), "a price of at most 1000", cents)?;
    equal("the price a second time", json_of(client.get(&path).await?, 200).await?, first)
}

async fn an_order_takes_stock(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 10).await?;
    let answer = client.buy(id, 3, &new_key()).await?;
    let location = header(&answer, "location").to_owned();
    let order = json_of(answer, 201).await?;
    same_fields(&order, &json!({ "product": id, "quantity": 3 }), &["product", "quantity"])?;
    let path = format!("/orders/{}", text(&order, "id")?);
    ends_with("the header `Location`", &location, &path)?;
    let at = text(&order, "created_at")?;
    let utc = OffsetDateTime::parse(at, &Rfc3339).is_ok_and(|at| at.offset().is_utc());
    expect(utc, "a time in RFC 3339 UTC in `created_at`", at)?;
    equal("the order", json_of(client.get(&path).await?, 200).await?, order.clone())?;
    equal("the stock", client.stock(id).await?, 7)
}

async fn the_same_key_again_is_the_same_order(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, key) = (client.put_up(1_000, 10).await?, new_key());
    let first = json_of(client.buy(id, 2, &key).await?, 201).await?;
    for _ in 0..2 {
        let again = json_of(client.buy(id, 2, &key).await?, 201).await?;
        equal("the order for the same key", again, first.clone())?;
        problem(client.buy(id, 3, &key).await?, 422).await?;
    }
    equal("the stock", client.stock(id).await?, 8)?;
    // Also when nothing is left: the order was made.
    status(&client.buy(id, 8, &new_key()).await?, 201)?;
    equal("the order", json_of(client.buy(id, 2, &key).await?, 201).await?, first)
}

async fn what_is_sold_out_is_a_conflict(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 3).await?;
    problem(client.buy(id, 4, &new_key()).await?, 409).await?;
    status(&client.buy(id, 3, &new_key()).await?, 201)?;
    problem(client.buy(id, 1, &new_key()).await?, 409).await?;
    equal("the stock", client.stock(id).await?, 0)
}

async fn a_report_counts_the_orders_of_its_day(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 10).await?;
    let order = json_of(client.buy(id, 4, &new_key()).await?, 201).await?;
    let day = text(&order, "created_at")?.chars().take(10).collect::<String>();
    let path = format!("reports/{day}");
    let before = json_of(client.get(&path).await?, 200).await?;
    equal("the field `day`", before["day"].clone(), day)?;
    // Others order too, at the same time. The day does not end in between unless it is midnight.
    let order = json_of(client.buy(id, 4, &new_key()).await?, 201).await?;
    let after = json_of(client.get(&path).await?, 200).await?;
    if text(&order, "created_at")?.starts_with(text(&before, "day")?) {
        for (field, more) in [("orders", 1), ("items", 4)] {
            let least = integer(&before, field)? + more;
            let seen = integer(&after, field)?;
            expect(seen >= least, format!("`{field}` of {least} at least"), seen)?;
        }
    }
    let long_ago = json_of(client.get("reports/1970-01-01").await?, 200).await?;
    equal("the orders of a day without any", integer(&long_ago, "orders")?, 0)
}

async fn a_report_can_be_a_job(target: &Target) -> Outcome {
    let client = Client::of(target);
    let post = || target.request(Method::POST, "reports/1970-01-02");
    let accepted = client.send(post).await?;
    let location = header(&accepted, "location").to_owned();
    let job = json_of(accepted, 202).await?;
    let path = format!("/jobs/{}", text(&job, "id")?);
    ends_with("the header `Location`", &location, &path)?;
    let done = eventually("the job is done", async || {
        let job = json_of(client.get(&path).await?, 200).await?;
        let state = text(&job, "state")?;
        let known = ["queued", "running", "done"].contains(&state);
        expect(known, "the state queued, running or done", state)?;
        Ok((state == "done").then_some(job))
    })
    .await?;
    equal("the day of the report", done["report"]["day"].clone(), "1970-01-02")
}

async fn the_pressure_is_told(target: &Target) -> Outcome {
    let pressure = json_of(target.get("pressure").await?, 200).await?;
    for (object, field) in [
        (&pressure, "in_flight"),
        (&pressure, "waiting"),
        (&pressure, "jobs"),
        (&pressure["shed"], "checkout"),
        (&pressure["shed"], "browsing"),
        (&pressure["limits"], "in_flight"),
        (&pressure["limits"], "waiting"),
    ] {
        let seen = integer(object, field)?;
        expect(seen >= 0, format!("`{field}` of 0 at least"), seen)?;
    }
    let metrics = target.get("metrics").await?;
    status(&metrics, 200)?;
    media_type_is(&metrics, "text/plain")?;
    let text = metrics.text().await?;
    for name in ["requests_in_flight", "requests_shed_total"] {
        expect(text.contains(name), format!("{name} in the metrics"), &text)?;
    }
    Ok(())
}

async fn a_deadline_in_the_future_is_taken(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 1).await?;
    let soon = (OffsetDateTime::now_utc() + time::Duration::seconds(20)).format(&Rfc3339)?;
    for deadline in [soon.as_str(), "9999-12-31T23:59:59Z", "9999-12-31T23:59:59+01:00"] {
        let get = || {
            let get = target.request(Method::GET, &format!("products/{id}"));
            get.header("x-request-deadline", deadline)
        };
        status(&client.send(get).await?, 200)?;
    }
    Ok(())
}

async fn a_deadline_that_has_passed_is_told(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 1).await?;
    let past = (OffsetDateTime::now_utc() - time::Duration::seconds(1)).format(&Rfc3339)?;
    for deadline in [past.as_str(), "0001-01-01T00:00:00Z"] {
        let order = client.order(id, 1, &new_key()).header("x-request-deadline", deadline);
        problem(target.send(order).await?, 503).await?;
    }
    equal("the stock", client.stock(id).await?, 1)
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
