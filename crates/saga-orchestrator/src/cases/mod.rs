//! The saga's table of calls: that of the orders, and those of its three participants.

mod bad_input;
mod orders;
mod participants;

use anyhow::{Context, ensure};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use conform::{
    case::{Outcome, Suite},
    target::{Target, eventually},
};

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The program serves the orders and their three participants at one address: `/orders`, `/inventory/…`, `/payment/…` and \
    `/shipping/…`. It charges `pm_card_visa` and declines `pm_card_chargeDeclined`, sends nothing to the country \
    `XX`, and comes to an end with an order within twenty seconds, or within a minute after it was killed: a \
    lease may not be longer. Each case has skus, keys and orders of its own.";

/// Every case.
pub fn suite() -> Suite {
    Suite {
        needs: NEEDS,
        cases: [orders::cases(), participants::cases(), bad_input::cases()].concat(),
    }
}

/// What an order costs here.
const AMOUNT: i64 = 2_500;

/// The service in its own words.
#[derive(Clone, Copy)]
struct Api<'a>(&'a Target);

impl Api<'_> {
    /// A key, or a sku, that no other run uses.
    fn name(self, name: &str) -> String {
        format!("{name}-{}", self.0.tag())
    }

    fn keyed(self, path: &str, key: &str, body: &Value) -> RequestBuilder {
        self.0.request(Method::POST, path).header("idempotency-key", key).json(body)
    }

    /// A participant's call, or an order, with its key.
    async fn post(self, path: &str, key: &str, body: &Value) -> anyhow::Result<Response> {
        Ok(self.0.send_patiently(|| self.keyed(path, key, body)).await?.0)
    }

    async fn json(self, path: &str) -> anyhow::Result<Value> {
        let response = self.0.get(path).await?;
        ensure!(response.status() == 200, "{path}: {}", response.status());
        Ok(response.json().await?)
    }

    async fn stock(self, sku: &str, quantity: i64) -> Outcome {
        let put = self.0.request(Method::PUT, &format!("inventory/stock/{sku}"));
        let response = self.0.send(put.json(&json!({ "quantity": quantity }))).await?;
        ensure!(response.status() == 200, "PUT of the stock: {}", response.status());
        Ok(())
    }

    /// What is available, reserved and sold of it.
    async fn stock_of(self, sku: &str) -> anyhow::Result<[i64; 3]> {
        let stock = self.json(&format!("inventory/stock/{sku}")).await?;
        let of = |field: &str| stock[field].as_i64().with_context(|| format!("{field}: {stock}"));
        Ok([of("available")?, of("reserved")?, of("sold")?])
    }

    /// The stock is this: available, reserved and sold.
    async fn has_stock(self, sku: &str, expected: [i64; 3]) -> Outcome {
        let seen = self.stock_of(sku).await?;
        ensure!(seen == expected, "available, reserved, sold: {seen:?} and not {expected:?}");
        Ok(())
    }

    /// Places an order that must be accepted, and returns its id.
    async fn order(self, key: &str, order: &Value) -> anyhow::Result<String> {
        let response = self.post("orders", key, order).await?;
        ensure!(response.status() == 202, "the order: {}", response.status());
        let body: Value = response.json().await?;
        Ok(body["id"].as_str().context("no id")?.to_owned())
    }

    /// The order, once it has come to rest.
    async fn ended(self, id: &str) -> anyhow::Result<Value> {
        eventually("the order is confirmed, cancelled or stuck", async || {
            let order = self.json(&format!("orders/{id}")).await?;
            let rests = ["confirmed", "cancelled", "stuck"].iter().any(|it| order["status"] == *it);
            Ok(rests.then_some(order))
        })
        .await
    }

    /// The order comes to rest like this.
    async fn ends(self, id: &str, expected: &str) -> anyhow::Result<Value> {
        let order = self.ended(id).await?;
        ensure!(order["status"] == expected, "it is not {expected}: {order}");
        Ok(order)
    }

    /// Charges and refunds, shipments that are booked and that are cancelled.
    async fn effects(self, id: &str) -> anyhow::Result<[usize; 4]> {
        let payments = self.json(&format!("payment/payments?order_id={id}")).await?;
        let shipments = self.json(&format!("shipping/shipments?order_id={id}")).await?;
        let shipments = shipments["shipments"].as_array().context("no shipments")?;
        let count = |list: &Value| list.as_array().map(Vec::len).context("no list");
        let of = |status: &str| shipments.iter().filter(|it| it["status"] == status).count();
        let (charges, refunds) = (count(&payments["charges"])?, count(&payments["refunds"])?);
        Ok([charges, refunds, of("booked"), of("cancelled")])
    }

    /// The order has had these effects.
    async fn had(self, id: &str, expected: [usize; 4]) -> Outcome {
        let seen = self.effects(id).await?;
        ensure!(
            seen == expected,
            "charges, refunds, parcels booked and cancelled: {seen:?} and not {expected:?}"
        );
        Ok(())
    }
}

/// An order of two of this sku.
fn order(sku: &str) -> Value {
    json!({
        "customer_id": "c-1",
        "items": [{ "sku": sku, "quantity": 2 }],
        "amount_cents": AMOUNT,
        "payment_method": "pm_card_visa",
        "address": { "name": "Ada", "street": "1 Lane", "city": "London", "country": "GB" },
    })
}

/// It with one thing changed: `changed(order, "address.country", "XX")`.
fn changed(mut order: Value, path: &str, value: impl Into<Value>) -> Value {
    let pointer = format!("/{}", path.replace('.', "/"));
    if let Some(field) = order.pointer_mut(&pointer) {
        *field = value.into();
    }
    order
}

/// `reserve done`, and so on.
fn statuses(order: &Value) -> Vec<String> {
    let steps = order["steps"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    steps.map(|step| format!("{} {}", text(&step["name"]), text(&step["status"]))).collect()
}

/// An order's id that nobody has used.
fn new_id() -> String {
    let number = format!("{:032x}", rand::random::<u128>());
    let [a, b, c, d] = [&number[..8], &number[8..12], &number[13..16], &number[17..20]];
    format!("{a}-{b}-4{c}-8{d}-{}", &number[20..])
}
