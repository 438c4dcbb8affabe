//! What becomes of an order?

use anyhow::Context;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::client::{AMOUNT, Client, changed, id_of, order, statuses};
use conform::{
    case::Outcome,
    cases,
    expect::{ends_with, equal, expect, integer, json_of, list, status_in, text},
    http::{header, lives_and_is_ready, problem},
    target::Target,
};

cases! {
    Plain an_order_is_accepted_and_then_confirmed: "202 with Location and the order; then confirmed, each step done; one charge, one parcel, the items sold", "202 says that it is written down and will end. The client looks where Location points.";
    Plain the_same_key_gets_the_same_order: "The same key and order again: 202 and the same order; another order under that key: 422", "A client that heard nothing asks again, and must not buy twice.";
    Plain a_declined_payment_cancels_the_order_and_releases_the_stock: "Payment declines: cancelled, the reservation compensated, the rest skipped, nothing charged", "What is reserved for an order that is no more can be sold to nobody.";
    Plain a_refused_address_refunds_and_releases_in_reverse: "Shipping refuses: refund, then release; one charge and one refund of the same amount", "The customer gets the money back, all of it, once.";
    Plain an_order_for_more_than_there_is_is_cancelled: "More than there is, or an unknown sku: cancelled, with a reason, nothing charged", "A program that charges before there is stock has to refund.";
    Plain an_order_of_several_items_reserves_all_or_none: "Of two items one is short: neither stays reserved", "Half a reservation holds up others for nothing.";
    Plain what_is_not_stuck_cannot_be_retried: "Retry of an order that is not stuck: 409", "A slip in the console must not run a finished order again.";
    Plain the_newest_orders_are_listed: "GET /orders?status=…: those of this status, the newest first, a hundred at most; without a status, of any", "Somebody must find the stuck ones among millions.";
    Plain an_unknown_order_is_not_found: "404 for an order that nobody has, and for a string that cannot be an id; such an order has had no effects", "It is an everyday event and no error of the server.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

async fn an_order_is_accepted_and_then_confirmed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, sku) = (client.name("aoiaatc"), client.name("aoiaatc-book"));
    client.put_stock(&sku, 3).await?;
    let response = client.post("orders", &key, &order(&sku)).await?;
    let location = header(&response, "location").to_owned();
    let body = json_of(response, 202).await?;
    let id = id_of(&body)?;
    ends_with("the header `Location`", &location, &format!("/orders/{id}"))?;
    text(&body, "status")?;
    let order = client.ends(id, "confirmed").await?;
    equal("the field `id`", order["id"].clone(), id.to_string())?;
    equal(
        "the steps",
        statuses(&order),
        vec!["reserve done", "charge done", "book done", "sell done"],
    )?;
    for step in list(&order, "steps")? {
        // More than one, if a participant was slow.
        expect(integer(step, "attempts")? >= 1, "one attempt at least in each step", step)?;
        let at = text(step, "at")?;
        let time = OffsetDateTime::parse(at, &Rfc3339).is_ok();
        expect(time, "a time in RFC 3339 in `at` of each step", at)?;
    }
    client.has_stock(&sku, [1, 0, 2]).await?;
    client.had(id, [1, 0, 1, 0]).await?;
    let payments = client.json(&format!("payment/effects/{id}")).await?;
    let amount = payments["effects"][0]["request"]["amount_cents"].clone();
    equal("the amount of the charge", amount, AMOUNT)
}

async fn the_same_key_gets_the_same_order(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, sku) = (client.name("tskgtso"), client.name("tskgtso-book"));
    client.put_stock(&sku, 10).await?;
    let id = client.place_order(&key, &order(&sku)).await?;
    let again = client.place_order(&key, &order(&sku)).await?;
    equal("the id of the order, for the same key", again.to_string(), id.to_string())?;
    client.ended(id).await?;
    let again = client.post("orders", &key, &order(&sku)).await?;
    let again = json_of(again, 202).await.context("the same key when the order has ended")?;
    equal("the id of the order, for the same key", again["id"].clone(), id.to_string())?;
    let other = changed(order(&sku), "amount_cents", AMOUNT + 1);
    problem(client.post("orders", &key, &other).await?, 422).await.context("another order")?;
    let another = client.place_order(&client.name("tskgtso another"), &order(&sku)).await?;
    expect(another != id, "another order for another key", another)?;
    client.ends(another, "confirmed").await?;
    client.has_stock(&sku, [6, 0, 4]).await
}

async fn a_declined_payment_cancels_the_order_and_releases_the_stock(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, sku) = (client.name("adpctoarts"), client.name("adpctoarts-book"));
    client.put_stock(&sku, 2).await?;
    let declined = changed(order(&sku), "payment_method", "pm_card_chargeDeclined");
    let id = client.place_order(&key, &declined).await?;
    let order = client.ends(id, "cancelled").await?;
    let expected =
        ["reserve compensated", "charge refused", "book skipped", "sell skipped", "release done"];
    equal("the steps", statuses(&order), expected.to_vec())?;
    text(&order["steps"][1], "last_error")?;
    client.had(id, [0, 0, 0, 0]).await?;
    client.has_stock(&sku, [2, 0, 0]).await
}

async fn a_refused_address_refunds_and_releases_in_reverse(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, sku) = (client.name("ararair"), client.name("ararair-book"));
    client.put_stock(&sku, 2).await?;
    let id = client.place_order(&key, &changed(order(&sku), "address.country", "XX")).await?;
    let order = client.ends(id, "cancelled").await?;
    let expected = [
        "reserve compensated",
        "charge compensated",
        "book refused",
        "sell skipped",
        "refund done",
        "release done",
    ];
    equal("the steps", statuses(&order), expected.to_vec())?;
    client.had(id, [1, 1, 0, 0]).await?;
    let payments = client.json(&format!("payment/effects/{id}")).await?;
    let amount = payments["effects"][1]["request"]["amount_cents"].clone();
    equal("the amount of the refund", amount, AMOUNT)?;
    client.has_stock(&sku, [2, 0, 0]).await
}

async fn an_order_for_more_than_there_is_is_cancelled(target: &Target) -> Outcome {
    let client = Client::of(target);
    let sku = client.name("aofmttiic-book");
    client.put_stock(&sku, 1).await?;
    for (key, sku) in [("too many", sku.clone()), ("unknown", client.name("aofmttiic-none"))] {
        let id =
            client.place_order(&client.name(&format!("aofmttiic {key}")), &order(&sku)).await?;
        let order = client.ends(id, "cancelled").await?;
        let first = statuses(&order).into_iter().next().unwrap_or_default();
        equal("the first step", first, "reserve refused")?;
        text(&order, "reason")?;
        client.had(id, [0, 0, 0, 0]).await?;
    }
    client.has_stock(&sku, [1, 0, 0]).await
}

async fn an_order_of_several_items_reserves_all_or_none(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (book, pen) = (client.name("aoosiraon-book"), client.name("aoosiraon-pen"));
    client.put_stock(&book, 5).await?;
    client.put_stock(&pen, 1).await?;
    let items =
        |pens: i64| json!([{ "sku": book, "quantity": 2 }, { "sku": pen, "quantity": pens }]);
    let placed = async |pens: i64| {
        let key = client.name(&format!("aoosiraon {pens}"));
        client.place_order(&key, &changed(order(&book), "items", items(pens))).await
    };
    let id = placed(2).await?;
    client.ends(id, "cancelled").await?;
    client.has_stock(&book, [5, 0, 0]).await?;
    let id = placed(1).await?;
    client.ends(id, "confirmed").await?;
    client.has_stock(&book, [3, 0, 2]).await?;
    client.has_stock(&pen, [0, 0, 1]).await
}

async fn what_is_not_stuck_cannot_be_retried(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, sku) = (client.name("winscbr"), client.name("winscbr-book"));
    client.put_stock(&sku, 2).await?;
    let id = client.place_order(&key, &order(&sku)).await?;
    client.ends(id, "confirmed").await?;
    problem(client.retry(id).await?.0, 409).await?;
    client.ends(id, "confirmed").await?;
    client.had(id, [1, 0, 1, 0]).await
}

async fn the_newest_orders_are_listed(target: &Target) -> Outcome {
    let client = Client::of(target);
    // There is nothing in stock, so each of them is cancelled.
    let sku = client.name("tnoal-nothing");
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(client.place_order(&client.name(&format!("tnoal {number}")), &order(&sku)).await?);
    }
    for &id in &ids {
        client.ends(id, "cancelled").await?;
    }
    ids.reverse();
    for path in ["orders", "orders?status=cancelled"] {
        let listed = client.json(path).await?;
        let orders = list(&listed, "orders")?;
        expect(orders.len() <= 100, "a hundred orders at most", orders.len())?;
        let is_cancelled = orders.iter().all(|order| order["status"] == "cancelled");
        expect(is_cancelled || path == "orders", "only orders that are cancelled", &listed)?;
        // Whatever else the server has, ours are among it, once and in their order.
        let mut ours = Vec::new();
        for order in orders {
            ours.extend(Some(id_of(order)?).filter(|id| ids.contains(id)));
        }
        let words = |ids: &[Uuid]| ids.iter().map(Uuid::to_string).collect::<Vec<_>>();
        equal("the orders of this run, the newest first", words(&ours), words(&ids))?;
    }
    Ok(())
}

async fn an_unknown_order_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = Uuid::new_v4();
    let unknown = format!("orders/{id}");
    for path in [&unknown, "orders/1", "payment/effects/1", "shipping/effects/1", "no/such/path"] {
        problem(target.get(path).await?, 404).await?;
    }
    // Some servers refuse such bytes before the program is asked, and know no problem documents.
    for path in ["orders/%00", "orders/%ff%fe"] {
        status_in(&target.get(path).await?, &[404, 400])?;
    }
    problem(client.retry(id).await?.0, 404).await?;
    // The participants never know whether there is such an order: to them it has had no effects.
    client.had(id, [0, 0, 0, 0]).await
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
