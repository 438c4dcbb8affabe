//! How do cases, tests and experiments speak to the services? As a client of their table of calls.

use std::time::Duration;

use anyhow::Context;
use conform::{
    case::Outcome,
    expect::{equal, expect, json_of, list, status, text},
    target::{Target, within},
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

/// How long an order may take to end. After a kill, the next orchestrator waits until the lease of the dead one ends.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// What an order costs here.
pub const AMOUNT: i64 = 2_500;

/// A client of one running process. It asks again when it is told 503; the target itself asks once.
#[derive(Clone, Debug)]
pub struct Client {
    /// The process.
    pub target: Target,
}

impl Client {
    /// Speaks to this program.
    pub fn of(target: &Target) -> Self {
        Self { target: target.clone() }
    }

    /// Speaks to the program at this URL.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self { target: Target::new(url, None)? })
    }

    /// A key, or a sku, that no other run uses.
    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.target.tag())
    }

    /// A request with an idempotency key: an order, or a participant's call.
    pub fn keyed(&self, path: &str, key: &str, body: &Value) -> RequestBuilder {
        self.target.request(Method::POST, path).header("idempotency-key", key).json(body)
    }

    /// The answer to such a request.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> anyhow::Result<Response> {
        Ok(self.target.send_patiently(|| self.keyed(path, key, body)).await?.0)
    }

    /// What a GET shows, which must be there.
    pub async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let get = || self.target.request(Method::GET, path);
        let (response, _) = self.target.send_patiently(get).await?;
        json_of(response, 200).await
    }

    /// Puts this many in stock.
    pub async fn put_stock(&self, sku: &str, quantity: i64) -> Outcome {
        let put = self.target.request(Method::PUT, &format!("inventory/stock/{sku}"));
        status(&self.target.send(put.json(&json!({ "quantity": quantity }))).await?, 200)
    }

    /// The stock of it is this: available, reserved and sold.
    pub async fn has_stock(&self, sku: &str, expected: [i64; 3]) -> Outcome {
        let stock = self.json(&format!("inventory/stock/{sku}")).await?;
        let seen = ["available", "reserved", "sold"].map(|field| stock[field].as_i64());
        let [available, reserved, sold] = expected;
        let what = format!("a stock of {available} available, {reserved} reserved, {sold} sold");
        expect(seen == expected.map(Some), what, &stock)
    }

    /// Places an order that must be accepted, and returns its id.
    pub async fn place_order(&self, key: &str, order: &Value) -> anyhow::Result<Uuid> {
        accepted(self.post("orders", key, order).await?).await
    }

    /// Asks that a stuck order be resumed; and whether any answer was 503, so that the first may have done it.
    pub async fn retry(&self, id: Uuid) -> anyhow::Result<(Response, bool)> {
        let path = format!("orders/{id}/retry");
        self.target.send_patiently(|| self.target.request(Method::POST, &path)).await
    }

    /// The order, once it has ended or is stuck.
    pub async fn ended(&self, id: Uuid) -> anyhow::Result<Value> {
        within(PATIENCE, "the order is confirmed, cancelled or stuck", async || {
            let order = self.json(&format!("orders/{id}")).await?;
            let rests = ["confirmed", "cancelled", "stuck"].iter().any(|it| order["status"] == *it);
            Ok(rests.then_some(order))
        })
        .await
    }

    /// The order ends like this.
    pub async fn ends(&self, id: Uuid, expected: &str) -> anyhow::Result<Value> {
        let order = self.ended(id).await?;
        expect(order["status"] == expected, format!("the order to end as {expected}"), &order)?;
        Ok(order)
    }

    /// What happened for an order: charges, refunds, bookings and cancellations.
    pub async fn effects(&self, id: Uuid) -> anyhow::Result<[usize; 4]> {
        let payments = self.json(&format!("payment/effects/{id}")).await?;
        let shipments = self.json(&format!("shipping/effects/{id}")).await?;
        let (payments, shipments) = (list(&payments, "effects")?, list(&shipments, "effects")?);
        let count =
            |effects: &[Value], kind| effects.iter().filter(|it| it["kind"] == kind).count();
        Ok([
            count(payments, "charge"),
            count(payments, "refund"),
            count(shipments, "book"),
            count(shipments, "cancel"),
        ])
    }

    /// This happened for the order, and nothing else.
    pub async fn had(&self, id: Uuid, expected: [usize; 4]) -> Outcome {
        let seen = self.effects(id).await?;
        let what = "the numbers of charges, refunds, bookings and cancellations";
        equal(what, seen.to_vec(), expected.to_vec())
    }
}

/// The id in the answer to an order that must be accepted.
pub async fn accepted(response: Response) -> anyhow::Result<Uuid> {
    id_of(&json_of(response, 202).await?)
}

/// The id of an order, as the service shows it.
pub fn id_of(order: &Value) -> anyhow::Result<Uuid> {
    let id = text(order, "id")?;
    id.parse().ok().with_context(|| format!("expected a UUID in `id`, got {id:?}"))
}

/// An order of two of this sku.
pub fn order(sku: &str) -> Value {
    json!({
        "customer_id": "c-1",
        "items": [{ "sku": sku, "quantity": 2 }],
        "amount_cents": AMOUNT,
        "payment_method": "pm_card_visa",
        "address": { "name": "Ada", "street": "1 Lane", "city": "London", "country": "GB" },
    })
}

/// An order with one thing changed: `changed(order, "address.country", "XX")`.
pub fn changed(mut order: Value, path: &str, value: impl Into<Value>) -> Value {
    let pointer = format!("/{}", path.replace('.', "/"));
    if let Some(field) = order.pointer_mut(&pointer) {
        *field = value.into();
    }
    order
}

/// `reserve done`, and so on.
pub fn statuses(order: &Value) -> Vec<String> {
    let steps = order["steps"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    steps.map(|step| format!("{} {}", text(&step["name"]), text(&step["status"]))).collect()
}
