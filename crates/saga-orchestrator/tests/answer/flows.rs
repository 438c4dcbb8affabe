//! Does an order end alike when it finds its way without an orchestrator, or in one transaction?

use anyhow::{Context, ensure};
use conform::http::problem;
use lab::harness::Outcome;
use saga_orchestrator::{
    cases::client::{changed, order},
    experiments::fixture,
};
use serde_json::{Value, json};

use crate::start;

lab::tests![
    the_choreographed_order_ends_in_the_same_ways,
    an_event_that_no_code_of_ours_wrote_holds_nothing_up,
    the_order_by_two_phase_commit_says_what_is_missing,
];

async fn the_choreographed_order_ends_in_the_same_ways() -> Outcome {
    let (_queues, prefix) = fixture::queues().await?;
    let flow = ["--flow", "choreography", "--queue-prefix", &prefix];
    let (_fixture, _child, client) = start(&flow).await?;
    client.put_stock("book", 4).await?;
    for (key, order, end, effects) in [
        ("good", order("book"), "confirmed", [1, 0, 1, 0]),
        (
            "declined",
            changed(order("book"), "payment_method", "pm_card_chargeDeclined"),
            "cancelled",
            [0, 0, 0, 0],
        ),
        ("nowhere", changed(order("book"), "address.country", "XX"), "cancelled", [1, 1, 0, 0]),
        (
            "no such",
            changed(order("book"), "items.0.sku", "no-such-sku"),
            "cancelled",
            [0, 0, 0, 0],
        ),
        ("also good", order("book"), "confirmed", [1, 0, 1, 0]),
        ("sold out", order("book"), "cancelled", [0, 0, 0, 0]),
    ] {
        let id = client.place_order(key, &order).await?;
        ensure!(client.place_order(key, &order).await? == id, "{key}");
        client.ends(id, end).await.context(key)?;
        client.had(id, effects).await.context(key)?;
    }
    client.has_stock("book", [0, 0, 4]).await?;
    let other = changed(order("book"), "amount_cents", 1);
    problem(client.post("orders", "good", &other).await?, 422).await?;
    Ok(())
}

async fn an_event_that_no_code_of_ours_wrote_holds_nothing_up() -> Outcome {
    let (queues, prefix) = fixture::queues().await?;
    let flow = ["--flow", "choreography", "--queue-prefix", &prefix];
    let (_fixture, _child, client) = start(&flow).await?;
    client.put_stock("book", 4).await?;
    let id = client.place_order("before", &order("book")).await?;
    client.ends(id, "confirmed").await?;
    let channel = queues.connection().await?.create_channel().await?;
    let exchange = format!("{prefix}events");
    let (an_id, fewer_than_none) =
        ("00000000-0000-7000-8000-000000000005", changed(order("book"), "items.0.quantity", -1));
    let fewer_than_none = json!({
        "id": an_id, "kind": "order.placed", "order_id": an_id, "order": fewer_than_none,
    })
    .to_string();
    let last = fewer_than_none.as_bytes();
    for event in [&b"\xff\xfe"[..], b"", b"{}", b"<html>", br#"{"kind":"order.placed"}"#, last] {
        let options = lapin::options::BasicPublishOptions::default();
        let publish = channel.basic_publish(
            exchange.as_str().into(),
            "order.placed".into(),
            options,
            event,
            lapin::BasicProperties::default(),
        );
        publish.await?.await?;
    }
    let id = client.place_order("after", &order("book")).await?;
    client.ends(id, "confirmed").await?;
    Ok(())
}

/// The shared server may not allow prepared transactions, which is PostgreSQL's default: then it says so by a 500 or
/// a 503, and nothing is left behind. Where it does, the order is confirmed or cancelled at once.
async fn the_order_by_two_phase_commit_says_what_is_missing() -> Outcome {
    let (_fixture, _child, client) = start(&["--flow", "two-phase-commit"]).await?;
    client.put_stock("book", 2).await?;
    let nowhere = changed(order("book"), "address.country", "XX");
    let refused = client.post("orders", "declined", &nowhere).await?;
    ensure!(refused.status() == 202);
    ensure!(refused.json::<Value>().await?["status"] == "cancelled");
    let response = client.post("orders", "good", &order("book")).await?;
    if response.status() == 202 {
        ensure!(response.json::<Value>().await?["status"] == "confirmed");
    } else {
        problem(response, 500).await?;
        client.has_stock("book", [2, 0, 0]).await?;
    }
    Ok(())
}
