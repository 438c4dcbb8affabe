//! The table of calls of a shop.

mod bad_input;
pub mod client;
mod crowd;

use anyhow::Context;
use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{
        ends_with, equal, expect, integer, json_of, list, same_fields, status, status_in, text,
    },
    http::{header, lives_and_is_ready, problem},
    target::{Target, eventually},
};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::{Client, new_id};

cases! {
    Plain a_customer_is_kept_with_fields_that_nobody_planned: "PUT /customers/{id}: 201 with Location, then 200; GET: the same, with every field", "A profile grows faster than anybody's schema.";
    Plain an_old_program_is_served: "PUT with phone and GET with as_of_schema=1: phone; without it: phones", "Programs of two versions run side by side at every deployment.";
    Plain a_put_replaces_all_but_the_amount: "PUT again: what is left out is gone, and balance and stock stay", "An old copy of a customer must not bring money back.";
    Plain a_patch_changes_what_it_names: "PATCH: what is null goes, what is named is replaced, all else stays", "RFC 7396 in three lines.";
    Plain a_customer_is_deleted_and_may_be_deleted_again: "DELETE: 204, and again; then 404", "A client that did not hear the answer asks again.";
    Plain a_customer_with_orders_stays: "DELETE of a customer with orders: 409", "An order whose customer is gone belongs to nobody.";
    Plain an_order_takes_stock_and_money: "POST /orders: 201; balance and stock are smaller by it, and the order is in the customer's list", "This is what a shop is for.";
    Plain an_order_that_cannot_be_takes_nothing: "Too little stock or money: 409; and neither is touched", "All or nothing.";
    Plain an_order_keeps_the_price_of_its_day: "After a new price, the old order shows the old one", "Here a copy is right, and a reference would be wrong.";
    Plain the_newest_order_comes_first: "GET /customers/{id}/orders and GET /feed/{id}: the newest first", "A page shows the top.";
    Plain products_are_found_by_what_nobody_planned: "GET /products?colour=…&max_price=…: the matching ones, the cheapest first", "The filter that somebody wants next month.";
    Plain a_product_that_has_changed_is_found_by_its_new_attributes_only: "After a PUT with another colour: found by the new one, not by the old one", "An index that is kept by hand forgets this first.";
    Plain a_list_has_a_limit: "GET /products, and with an attribute that 105 products have: the hundred cheapest", "A list without a limit grows with the shop, and one day it is all of it.";
    Plain revenue_can_be_asked_for_later: "GET /reports/revenue?by=country,month: an order adds to its row", "The question that nobody planned is the one that comes.";
    Plain a_report_of_one_moment_or_an_honest_no: "snapshot=true: 200, or 501 with the reason", "A store that cannot promise it must not pretend.";
    Plain a_session_ends: "PUT and GET /sessions/{id}: what is left of it; then 404", "Nobody signs out.";
    Plain a_store_says_what_it_promises: "GET /consistency: words, and a list of promises", "The caller cannot see it from outside.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    let cases = [cases(), bad_input::cases(), crowd::cases()].concat();
    Suite { calls: include_str!("calls.md"), cases }
}

async fn a_customer_is_kept_with_fields_that_nobody_planned(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", new_id());
    let mut ada = json!({
        "name": "Łukasz '; drop table customers; --",
        "country": "PL",
        "phones": ["1", "2"],
        "a.b": 1,
        "$set": { "name": "Eve" },
        "filter": { "$gt": "" },
        "": null,
        "deep": [[[{ "x": [0.1, -1.5, 9_007_199_254_740_991_i64] }]]],
        "ключ": "ü\u{1F600}\u{2028}",
    });
    let answer = client.put(&path, &ada).await?;
    ends_with("the header `Location`", header(&answer, "location"), &path)?;
    let answer = json_of(answer, 201).await?;
    ada["id"] = json!(path.trim_start_matches("customers/"));
    ada["balance_cents"] = json!(0);
    equal("the customer", answer, ada.clone())?;
    equal("the customer", client.read(&path).await?, ada.clone())?;
    let again = json!({ "name": "Ada", "country": "GB" });
    status(&client.put(&path, &again).await?, 200)
}

async fn an_old_program_is_served(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", new_id());
    let old = json!({ "name": "Ada", "country": "GB", "phone": "1", "x": 1 });
    status(&client.put(&path, &old).await?, 201)?;
    for (version, field, expected) in
        [("", "phones", json!(["1"])), ("?as_of_schema=2", "phones", json!(["1"]))]
    {
        equal(field, client.read(&format!("{path}{version}")).await?[field].clone(), expected)?;
    }
    let seen = client.read(&format!("{path}?as_of_schema=1")).await?;
    same_fields(&seen, &old, &["name", "country", "phone", "x"])?;
    expect(seen.get("phones").is_none(), "no `phones` in version 1", &seen)?;
    let none = json!({ "name": "Ada", "country": "GB" });
    status(&client.put(&path, &none).await?, 200)?;
    let seen = client.read(&format!("{path}?as_of_schema=1")).await?;
    expect(seen.get("phone").is_none(), "no `phone` for a customer without", &seen)
}

async fn a_put_replaces_all_but_the_amount(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 500).await?, client.product(250, 3).await?);
    let new = json!({ "name": "A", "country": "FR" });
    let seen = json_of(client.put(&format!("customers/{ada}"), &new).await?, 200).await?;
    equal("the balance", seen["balance_cents"].clone(), 500)?;
    equal("the phones", seen["phones"].clone(), json!([]))?;
    let new = json!({ "name": "T", "price_cents": 1 });
    let seen = json_of(client.put(&format!("products/{tea}"), &new).await?, 200).await?;
    equal("the stock", seen["stock"].clone(), 3)?;
    expect(seen.get("colour").is_none(), "no `colour` any more", &seen)
}

async fn a_patch_changes_what_it_names(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", new_id());
    let ada = json!({ "name": "Ada", "country": "GB", "a": { "b": 1, "c": 2 }, "d": [1] });
    status(&client.put(&path, &ada).await?, 201)?;
    let changes = json!({ "country": "FR", "a": { "b": null, "e": 3 }, "d": null });
    let seen = json_of(client.patch(&path, &changes).await?, 200).await?;
    same_fields(&seen, &json!({ "name": "Ada", "country": "FR" }), &["name", "country"])?;
    equal("the field `a`", seen["a"].clone(), json!({ "c": 2, "e": 3 }))?;
    expect(seen.get("d").is_none(), "no field `d` any more", &seen)?;
    equal("the customer", client.read(&path).await?, seen)?;
    let nobody = format!("customers/{}", new_id());
    problem(client.patch(&nobody, &changes).await?, 404).await.map(drop)
}

async fn a_customer_is_deleted_and_may_be_deleted_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", client.customer("GB", 5).await?);
    for _ in 0..2 {
        status(&target.ask(Method::DELETE, &path).await?, 204)?;
        problem(target.get(&path).await?, 404).await?;
    }
    Ok(())
}

async fn a_customer_with_orders_stays(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 500).await?, client.product(250, 3).await?);
    status(&client.order(&ada, &tea, 1).await?, 201)?;
    let path = format!("customers/{ada}");
    problem(target.ask(Method::DELETE, &path).await?, 409).await?;
    client.read(&path).await.map(drop)
}

/// The balance of a customer and the stock of a product.
async fn amounts(client: &Client, customer: &str, product: &str) -> anyhow::Result<(i64, i64)> {
    let customer = client.read(&format!("customers/{customer}")).await?;
    let product = client.read(&format!("products/{product}")).await?;
    Ok((integer(&customer, "balance_cents")?, integer(&product, "stock")?))
}

async fn an_order_takes_stock_and_money(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 1_000).await?, client.product(250, 3).await?);
    let order = json_of(client.order(&ada, &tea, 3).await?, 201).await?;
    equal("the total", order["total_cents"].clone(), 750)?;
    let line = json!([{ "product": tea, "name": "Tea", "quantity": 3, "price_cents": 250 }]);
    equal("the lines", order["lines"].clone(), line)?;
    let at = text(&order, "ordered_at")?;
    let utc = OffsetDateTime::parse(at, &Rfc3339).is_ok_and(|at| at.offset().is_utc());
    expect(utc, "a time in RFC 3339 UTC in `ordered_at`", at)?;
    let (balance, stock) = amounts(&client, &ada, &tea).await?;
    equal("balance and stock", json!([balance, stock]), json!([250, 0]))?;
    let seen = client.read(&format!("customers/{ada}/orders")).await?;
    equal("the customer's orders", seen["items"].clone(), json!([order]))
}

async fn an_order_that_cannot_be_takes_nothing(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 1_000).await?, client.product(250, 10).await?);
    let rare = client.product(1, 1).await?;
    for lines in [
        json!({ tea.as_str(): 11 }),
        json!({ tea.as_str(): 5 }),
        json!({ tea.as_str(): 1, rare.as_str(): 2 }),
    ] {
        let order = json!({ "customer": ada, "lines": lines });
        problem(target.post("orders", &order).await?, 409).await.context(order.to_string())?;
    }
    for order in [
        json!({ "customer": ada, "lines": { tea.as_str(): 1, new_id(): 1 } }),
        json!({ "customer": new_id(), "lines": { tea.as_str(): 1 } }),
    ] {
        problem(target.post("orders", &order).await?, 422).await.context(order.to_string())?;
    }
    let (balance, stock) = amounts(&client, &ada, &tea).await?;
    equal("balance and stock", json!([balance, stock]), json!([1_000, 10]))?;
    let (_, stock) = amounts(&client, &ada, &rare).await?;
    equal("the stock of the other one", stock, 1)?;
    let seen = client.read(&format!("customers/{ada}/orders")).await?;
    equal("the customer's orders", seen["items"].clone(), json!([]))
}

async fn an_order_keeps_the_price_of_its_day(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 1_000).await?, client.product(250, 3).await?);
    status(&client.order(&ada, &tea, 1).await?, 201)?;
    let dearer = json!({ "name": "Better tea", "price_cents": 300 });
    status(&client.put(&format!("products/{tea}"), &dearer).await?, 200)?;
    status(&client.order(&ada, &tea, 1).await?, 201)?;
    let seen = client.read(&format!("customers/{ada}/orders")).await?;
    let line = |n: usize| &seen["items"][n]["lines"][0];
    let prices = json!([line(0)["price_cents"], line(1)["price_cents"]]);
    equal("the prices, the newest first", prices, json!([300, 250]))?;
    equal("the old name", line(1)["name"].clone(), "Tea")
}

async fn the_newest_order_comes_first(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 10_000).await?, client.product(10, 100).await?);
    for many in 1..=5 {
        status(&client.order(&ada, &tea, many).await?, 201)?;
    }
    for path in [format!("customers/{ada}/orders"), format!("feed/{ada}")] {
        let seen = client.read(&path).await?;
        let totals: Vec<_> = list(&seen, "items")?.iter().map(|it| &it["total_cents"]).collect();
        equal("the totals", json!(totals), json!([50, 40, 30, 20, 10])).context(path)?;
    }
    let seen = client.read(&format!("feed/{ada}")).await?;
    text(&seen["items"][0], "at").map(drop)
}

/// The ids of what is found.
async fn found(client: &Client, query: &str) -> anyhow::Result<Value> {
    let seen = client.read(&format!("products?{query}")).await?;
    Ok(list(&seen, "items")?.iter().map(|it| it["id"].clone()).collect())
}

async fn products_are_found_by_what_nobody_planned(target: &Target) -> Outcome {
    let client = Client::of(target);
    // A value that nobody else uses.
    let (cut, mut ids) = (new_id(), Vec::new());
    for (cents, colour) in [(300, "red"), (100, "red"), (200, "blue"), (200, "{\"$gt\":\"\"}")] {
        let id = new_id();
        let shirt = json!({ "name": "Shirt", "price_cents": cents, "cut": cut, "colour": colour, "size": 7 });
        status(&client.put(&format!("products/{id}"), &shirt).await?, 201)?;
        ids.push(id);
    }
    for (query, expected) in [
        (format!("cut={cut}&colour=red"), json!([ids[1], ids[0]])),
        (format!("cut={cut}&colour=red&max_price=299"), json!([ids[1]])),
        (format!("colour=blue&cut={cut}"), json!([ids[2]])),
        (format!("cut={cut}&colour=%7B%22%24gt%22%3A%22%22%7D"), json!([ids[3]])),
        (format!("cut={cut}&colour=RED"), json!([])),
        (format!("cut={cut}&nothing=x"), json!([])),
        (format!("cut={cut}&size=7"), json!([])),
    ] {
        equal("what is found", found(&client, &query).await?, expected).context(query)?;
    }
    Ok(())
}

async fn a_product_that_has_changed_is_found_by_its_new_attributes_only(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let (cut, id) = (new_id(), new_id());
    for (colour, cents) in [("red", 100), ("blue", 200)] {
        let shirt = json!({ "name": "Shirt", "price_cents": cents, "cut": cut, "colour": colour });
        status_in(&client.put(&format!("products/{id}"), &shirt).await?, &[200, 201])?;
    }
    for (query, expected) in [
        ("colour=red", json!([])),
        ("colour=blue", json!([id])),
        ("max_price=199", json!([])),
        ("max_price=200", json!([id])),
    ] {
        let query = format!("cut={cut}&{query}");
        equal("what is found", found(&client, &query).await?, expected).context(query)?;
    }
    Ok(())
}

async fn a_list_has_a_limit(target: &Target) -> Outcome {
    let (client, cut) = (&Client::of(target), new_id());
    let puts = (101..=205).rev().map(|cents| {
        let shirt = json!({ "name": "Shirt", "price_cents": cents, "cut": cut });
        async move {
            let answer = client.put(&format!("products/{}", new_id()), &shirt).await?;
            status_in(&answer, &[200, 201])
        }
    });
    try_join_all(puts).await?;
    let seen = client.read(&format!("products?cut={cut}")).await?;
    let prices: Vec<_> = list(&seen, "items")?.iter().map(|it| &it["price_cents"]).collect();
    equal("the prices", json!(prices), json!((101..=200).collect::<Vec<_>>()))?;
    let all = client.read("products").await?;
    equal("how many of all products are shown", list(&all, "items")?.len(), 100)
}

/// Orders and cents of a country in a report.
fn row(report: &Value, country: &str) -> anyhow::Result<(i64, i64)> {
    let mut rows = list(report, "rows")?.iter().filter(|row| row["country"] == country);
    let count = |row: &Value| Ok((integer(row, "orders")?, integer(row, "cents")?));
    rows.try_fold((0, 0), |(orders, cents), row| {
        let more: anyhow::Result<(i64, i64)> = count(row);
        more.map(|more| (orders + more.0, cents + more.1))
    })
}

async fn revenue_can_be_asked_for_later(target: &Target) -> Outcome {
    let client = Client::of(target);
    let tea = client.product(250, 10).await?;
    // Other cases order too, but from another country.
    let ada = client.customer("XK", 5_000).await?;
    for by in ["country", "country,month"] {
        let path = format!("reports/revenue?by={by}");
        let before = row(&client.read(&path).await?, "XK")?;
        status(&client.order(&ada, &tea, 2).await?, 201)?;
        let after = client.read(&path).await?;
        let seen = row(&after, "XK")?;
        let more = json!([seen.0 - before.0, seen.1 - before.1]);
        equal("what one order adds", more, json!([1, 500])).context(path)?;
        let months = list(&after, "rows")?.iter().filter(|row| row.get("month").is_some()).count();
        expect((months > 0) == by.contains("month"), "`month` if it was asked for", &after)?;
    }
    let months = client.read("reports/revenue?by=month").await?;
    let row = list(&months, "rows")?.first().context("expected a row, got none")?;
    expect(text(row, "month")?.len() == 7, "a month like 2026-01", row)
}

async fn a_report_of_one_moment_or_an_honest_no(target: &Target) -> Outcome {
    let answer = target.get("reports/revenue?by=month&snapshot=true").await?;
    status_in(&answer, &[200, 501])?;
    if answer.status() == 501 {
        text(&problem(answer, 501).await?, "detail")?;
    }
    status(&target.get("reports/revenue?by=month&snapshot=false").await?, 200)
}

async fn a_session_ends(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("sessions/{}", new_id());
    problem(target.get(&path).await?, 404).await?;
    let session = json!({ "customer": "ada", "ttl_seconds": 60 });
    let answer = client.put(&path, &session).await?;
    status_in(&answer, &[200, 201])?;
    let seen = client.read(&path).await?;
    equal("whose session it is", seen["customer"].clone(), "ada")?;
    let left = integer(&seen, "ttl_seconds")?;
    expect((1..=60).contains(&left), "1 to 60 seconds left", left)?;
    status_in(
        &client.put(&path, &json!({ "customer": "ada", "ttl_seconds": 1 })).await?,
        &[200, 201],
    )?;
    eventually("the session ends", async || {
        Ok((target.get(&path).await?.status() == 404).then_some(()))
    })
    .await?;
    problem(target.get(&path).await?, 404).await.map(drop)
}

async fn a_store_says_what_it_promises(target: &Target) -> Outcome {
    let seen = Client::of(target).read("consistency").await?;
    text(&seen, "store")?;
    text(&seen, "words")?;
    let promises = list(&seen, "promises")?;
    expect(!promises.is_empty(), "at least one promise", &seen)?;
    for promise in promises {
        text(promise, "what")?;
        text(promise, "by")?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
