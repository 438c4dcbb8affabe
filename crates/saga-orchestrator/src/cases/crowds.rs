//! What comes of it when many order at once, or the program is killed?

use anyhow::Context;
use futures_util::future::try_join_all;
use serde_json::Value;

use super::client::{Client, accepted, changed, order};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect},
    killing::Killing,
    target::{Target, pause},
};

cases! {
    Load fifty_requests_with_one_key_make_one_order: "Fifty requests with one key at once: one order, one charge", "A program that looks first and inserts afterwards lets two of them find no order.";
    Load twenty_items_are_sold_to_twenty_of_a_hundred: "A hundred orders at once for twenty items: twenty confirmed, eighty cancelled, none oversold", "Between a look at the stock and taking it, others take it.";
    Restart what_was_accepted_ends_after_a_kill: "SIGKILL under load: every order that was answered with 202 ends; each effect once, or undone once; money and stock add up", "A crash in the middle of a saga is what a saga is for.";
}

async fn fifty_requests_with_one_key_make_one_order(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, sku) = (client.name("frwokmoo"), client.name("frwokmoo-book"));
    client.put_stock(&sku, 1_000).await?;
    let body = order(&sku);
    let ids = try_join_all((0..50).map(|_| client.place_order(&key, &body))).await?;
    let one = ids.iter().all(|id| *id == ids[0]);
    expect(one, "one order for fifty requests with one key", format!("{ids:?}"))?;
    client.ends(ids[0], "confirmed").await?;
    client.had(ids[0], [1, 0, 1, 0]).await?;
    client.has_stock(&sku, [998, 0, 2]).await
}

async fn twenty_items_are_sold_to_twenty_of_a_hundred(target: &Target) -> Outcome {
    let client = Client::of(target);
    let sku = client.name("tiasttoah-book");
    client.put_stock(&sku, 20).await?;
    let one = &changed(order(&sku), "items.0.quantity", 1);
    let ids = try_join_all((0..100).map(|number| {
        let (client, key) = (&client, client.name(&format!("tiasttoah {number}")));
        async move { client.place_order(&key, one).await }
    }))
    .await?;
    let mut confirmed = 0;
    for id in ids {
        let order = client.ended(id).await?;
        expect(order["status"] != "stuck", "no order to be stuck", &order)?;
        confirmed += usize::from(order["status"] == "confirmed");
    }
    equal("the number of confirmed orders for twenty items", confirmed, 20)?;
    client.has_stock(&sku, [0, 0, 20]).await
}

/// Every third is sent where nothing is sent.
fn nth(sku: &str, n: usize) -> Value {
    changed(order(sku), "address.country", if n % 3 == 2 { "XX" } else { "GB" })
}

/// Eight clients order until the server is gone; it is killed when sixty orders were accepted. Then each asks again for
/// what it has heard nothing of.
async fn what_was_accepted_ends_after_a_kill(target: &Target) -> Outcome {
    let client = &Client::of(target);
    let sku = &client.name("wwaeaak-book");
    client.put_stock(sku, 1_000_000).await?;
    let killing = &Killing::default();
    let clients = (0..8).map(|number| async move {
        let (mut orders, mut unanswered) = (Vec::new(), Vec::new());
        for n in 0.. {
            if killing.is_over() {
                break;
            }
            let key = client.name(&format!("wwaeaak {number} {n}"));
            let sent = target.send(client.keyed("orders", &key, &nth(sku, n))).await;
            let Ok(response) = sent else {
                unanswered.push((key, n));
                break;
            };
            if response.status() == 202 {
                orders.push((accepted(response).await?, n));
                killing.promised();
            } else {
                // Too many at once: then a little later. What became of this one nobody knows.
                unanswered.push((key, n));
                tokio::time::sleep(pause(&response)).await;
            }
        }
        anyhow::Ok((orders, unanswered))
    });
    let clients = killing.after(60, target, clients).await?;
    let (mut orders, mut confirmed) = (Vec::new(), 0);
    for said in clients {
        let (accepted, unanswered) = said?;
        orders.extend(accepted);
        for (key, n) in unanswered {
            orders.push((client.place_order(&key, &nth(sku, n)).await.context("asked again")?, n));
        }
    }
    for (id, n) in orders {
        let order = client.ended(id).await.context("it was accepted before the kill")?;
        let [charges, refunds, booked, cancelled] = client.effects(id).await?;
        if order["status"] == "confirmed" {
            expect(n % 3 != 2, "no order to the country XX to be confirmed", &order)?;
            client.had(id, [1, 0, 1, 0]).await.context("of a confirmed order")?;
            confirmed += 1;
        } else {
            equal("the status of an order after the kill", order["status"].clone(), "cancelled")?;
            let undone = charges <= 1 && refunds == charges && booked <= 1 && cancelled == booked;
            let what = "for a cancelled order each effect once at most, and undone";
            let got = format!(
                "{charges} charges, {refunds} refunds, {booked} bookings, {cancelled} cancellations"
            );
            expect(undone, what, got)?;
        }
    }
    client.has_stock(sku, [1_000_000 - 2 * confirmed, 0, 2 * confirmed]).await
}
