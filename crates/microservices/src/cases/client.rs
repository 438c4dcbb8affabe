//! How do cases and tests speak to the shop? As a client of its table of calls.

use std::hash::{BuildHasher, RandomState};

use conform::{expect::json_of, target::Target};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// A client of one running shop.
#[derive(Clone, Debug)]
pub struct Client {
    /// The shop.
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

    /// Sends it, and again while the shop is too busy.
    pub async fn send(&self, request: impl Fn() -> RequestBuilder) -> anyhow::Result<Response> {
        Ok(self.target.send_patiently(request).await?.0)
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.send(|| self.target.request(Method::GET, path)).await
    }

    /// Puts up a product of this price, and returns its number, which is new.
    pub async fn put_up(&self, cents: i64) -> anyhow::Result<i64> {
        let id = new_number();
        let product = json!({ "name": "tea", "cents": cents });
        let put = || self.target.request(Method::PUT, &format!("products/{id}")).json(&product);
        json_of(self.send(put).await?, 200).await?;
        Ok(id)
    }

    /// A request for so many of a product, under this key.
    pub fn order(&self, customer: i64, product: i64, quantity: i64, key: &str) -> RequestBuilder {
        let order = json!({ "customer": customer, "product": product, "quantity": quantity });
        self.target.request(Method::POST, "orders").json(&order).header("idempotency-key", key)
    }

    /// Sends this order.
    pub async fn buy(
        &self,
        customer: i64,
        product: i64,
        quantity: i64,
        key: &str,
    ) -> anyhow::Result<Response> {
        self.send(|| self.order(customer, product, quantity, key)).await
    }

    /// The orders of a customer.
    pub async fn history(&self, customer: i64, by: &str) -> anyhow::Result<Value> {
        let history = self.get(&format!("customers/{customer}/history?by={by}")).await?;
        Ok(json_of(history, 200).await?["orders"].clone())
    }
}

/// A number that no other product and no other customer has.
pub fn new_number() -> i64 {
    // Exact in every language, also where all numbers are floating.
    1 + i64::try_from(RandomState::new().hash_one(()) >> 12).unwrap_or(0)
}

/// A key that no other request has.
pub fn new_key() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}
