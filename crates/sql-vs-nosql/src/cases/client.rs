//! How do cases, tests and experiments speak to the service? As a client of its table of calls.

use std::hash::{BuildHasher, RandomState};

use conform::{
    expect::{json_of, status, status_in},
    target::Target,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Client {
    /// The service.
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

    /// Sends JSON, and again while the service is too busy.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Response> {
        let request = || self.target.request(method.clone(), path).json(body);
        Ok(self.target.send_patiently(request).await?.0)
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        self.send(Method::PUT, path, body).await
    }

    /// PATCH.
    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        self.send(Method::PATCH, path, body).await
    }

    /// What is at this path.
    pub async fn read(&self, path: &str) -> anyhow::Result<Value> {
        json_of(self.target.get(path).await?, 200).await
    }

    /// A customer under an id of its own, with this country and these cents.
    pub async fn customer(&self, country: &str, cents: i64) -> anyhow::Result<String> {
        let id = new_id();
        let body = json!({ "name": "Ada", "country": country, "phones": ["1"] });
        status_in(&self.put(&format!("customers/{id}"), &body).await?, &[200, 201])?;
        if cents > 0 {
            self.add(&format!("customers/{id}/deposits"), cents).await?;
        }
        Ok(id)
    }

    /// A product under an id of its own, at this price and with this stock.
    pub async fn product(&self, cents: i64, stock: i64) -> anyhow::Result<String> {
        let id = new_id();
        let body = json!({ "name": "Tea", "price_cents": cents, "colour": "green" });
        status_in(&self.put(&format!("products/{id}"), &body).await?, &[200, 201])?;
        if stock > 0 {
            self.add(&format!("products/{id}/deliveries"), stock).await?;
        }
        Ok(id)
    }

    /// Adds to a balance or a stock.
    pub async fn add(&self, path: &str, amount: i64) -> anyhow::Result<()> {
        let answer = self.send(Method::POST, path, &json!({ "amount": amount })).await?;
        status(&answer, 200)
    }

    /// Orders one product.
    pub async fn order(
        &self,
        customer: &str,
        product: &str,
        many: i64,
    ) -> anyhow::Result<Response> {
        let order = json!({ "customer": customer, "lines": { product: many } });
        self.send(Method::POST, "orders", &order).await
    }
}

/// An id that no other request has.
pub fn new_id() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}
