//! What do the three participants promise, so that a saga can stand on them?

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, order};
use conform::{
    case::Outcome,
    cases,
    expect::{equal, json_of, same_fields, status},
    http::problem,
    target::Target,
};

cases! {
    Plain stock_is_put_and_shown: "PUT of the stock: 200 and the stock; GET shows it; 404 for a sku that was never put in", "Somebody has to fill the shelves.";
    Plain a_participant_does_a_step_once_and_remembers_its_answer: "The same key and request again: the same answer, and no second effect. Another key for a step that the order has had: 409 that names the order; another request under a key: 422", "Whoever heard nothing must be able to ask again. That is what makes a time-out harmless.";
    Plain a_compensation_undoes_once_and_may_be_repeated: "Release, refund and cancel: 200, again and under another key too; each effect is undone once", "A compensation is repeated until it is heard, and must not refund twice.";
    Plain what_was_undone_before_it_came_is_never_done: "A compensation that comes first: 200, and its action after it: 409", "Messages overtake each other. A charge that comes after its refund would stay.";
    Plain a_refusal_is_remembered: "What was refused stays refused under its key, also when there is enough by now", "The saga is undoing its steps by then.";
    Plain what_is_not_reserved_cannot_be_sold: "Sell without a reservation: 409", "Stock that was promised to somebody else must not be sold.";
}

/// Each action, and its body for this order.
fn actions(id: Uuid, sku: &str) -> [(&'static str, Value); 3] {
    let items = json!([{ "sku": sku, "quantity": 2 }]);
    let charge = json!({ "order_id": id, "amount_cents": 100, "payment_method": "pm_card_visa" });
    [
        ("inventory/reserve", json!({ "order_id": id, "items": items })),
        ("payment/charge", charge),
        ("shipping/book", json!({ "order_id": id, "address": order(sku)["address"] })),
    ]
}

const COMPENSATIONS: [&str; 3] = ["shipping/cancel", "payment/refund", "inventory/release"];

async fn stock_is_put_and_shown(target: &Target) -> Outcome {
    let client = Client::of(target);
    let sku = client.name("sipas-book");
    let path = format!("inventory/stock/{sku}");
    problem(target.get(&path).await?, 404).await?;
    let put = target.request(Method::PUT, &path).json(&json!({ "quantity": 7 }));
    let response = target.send(put).await?;
    let expected = json!({ "sku": sku, "available": 7, "reserved": 0, "sold": 0 });
    for stock in [json_of(response, 200).await?, client.json(&path).await?] {
        same_fields(&stock, &expected, &["sku", "available", "reserved", "sold"])?;
    }
    client.put_stock(&sku, 0).await?;
    client.has_stock(&sku, [0, 0, 0]).await
}

async fn a_participant_does_a_step_once_and_remembers_its_answer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, sku) = (Uuid::new_v4(), client.name("apdasoaria-book"));
    client.put_stock(&sku, 5).await?;
    for (path, body) in &actions(id, &sku) {
        for _ in 0..3 {
            let response = client.post(path, &format!("{id}.do"), body).await?;
            let expected = json!({ "order_id": id, "outcome": "done" });
            same_fields(&json_of(response, 200).await?, &expected, &["order_id", "outcome"])?;
        }
        let refused = client.post(path, &format!("{id}.another"), body).await?;
        let refused = problem(refused, 409).await.context("the same step with another key")?;
        equal("the order_id in the refusal", refused["order_id"].clone(), id.to_string())?;
    }
    let other = json!({ "order_id": id, "amount_cents": 101, "payment_method": "pm_card_visa" });
    let reused = client.post("payment/charge", &format!("{id}.do"), &other).await?;
    problem(reused, 422).await.context("another request under the same key")?;
    client.has_stock(&sku, [3, 2, 0]).await?;
    client.had(id, [1, 0, 1, 0]).await
}

async fn a_compensation_undoes_once_and_may_be_repeated(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, sku) = (Uuid::new_v4(), client.name("acuoambr-book"));
    client.put_stock(&sku, 5).await?;
    for (path, body) in &actions(id, &sku) {
        status(&client.post(path, &format!("{id}.do"), body).await?, 200)?;
    }
    for path in COMPENSATIONS {
        for key in ["undo", "undo", "undo it again"] {
            let key = format!("{id}.{key}");
            status(&client.post(path, &key, &json!({ "order_id": id })).await?, 200)?;
        }
    }
    client.has_stock(&sku, [5, 0, 0]).await?;
    client.had(id, [1, 1, 1, 1]).await
}

async fn what_was_undone_before_it_came_is_never_done(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, sku) = (Uuid::new_v4(), client.name("wwubicind-book"));
    client.put_stock(&sku, 5).await?;
    for path in COMPENSATIONS {
        status(&client.post(path, &format!("{id}.undo"), &json!({ "order_id": id })).await?, 200)?;
    }
    for (path, body) in &actions(id, &sku) {
        let late = client.post(path, &format!("{id}.do"), body).await?;
        let refused = problem(late, 409).await.context("an action after its compensation")?;
        equal("the order_id in the refusal", refused["order_id"].clone(), id.to_string())?;
    }
    client.has_stock(&sku, [5, 0, 0]).await?;
    client.had(id, [0, 0, 0, 0]).await
}

async fn a_refusal_is_remembered(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, sku) = (Uuid::new_v4(), client.name("arir-book"));
    client.put_stock(&sku, 1).await?;
    let [(path, body), ..] = &actions(id, &sku);
    problem(client.post(path, &format!("{id}.do"), body).await?, 409).await?;
    client.put_stock(&sku, 10).await?;
    let again = client.post(path, &format!("{id}.do"), body).await?;
    problem(again, 409).await.context("asked again, when there is enough")?;
    client.has_stock(&sku, [10, 0, 0]).await
}

async fn what_is_not_reserved_cannot_be_sold(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = Uuid::new_v4();
    let sell = json!({ "order_id": id });
    let refused = client.post("inventory/sell", &format!("{id}.sell"), &sell).await?;
    let refused = problem(refused, 409).await?;
    equal("the order_id in the refusal", refused["order_id"].clone(), id.to_string())
}
