//! What is sold, and what does a client send to buy it?

use axum::http::HeaderMap;
use edge::{Mistakes, header::only, text::is_line};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use uuid::Uuid;

use crate::error::{Error, Result};

/// See draft-ietf-httpapi-idempotency-key-header.
const KEY: &str = "idempotency-key";

/// A row of `products`.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Product {
    /// The shop's own number.
    pub id: i64,
    /// One line.
    pub name: String,
    /// Before all rules.
    pub cents: i64,
    /// How many are left.
    pub stock: i32,
}

/// A product as the shop puts it up for sale.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `name`, `cents` and `stock`")]
pub struct ProductInput {
    name: String,
    cents: i64,
    stock: i32,
}

impl ProductInput {
    /// The product under this number. All mistakes are told at once.
    pub fn parse(self, id: i64) -> Result<Product> {
        let mut mistakes = Mistakes::default();
        let line = !self.name.trim().is_empty() && self.name.chars().count() <= 200;
        let name = (line && is_line(&self.name)).then_some(self.name);
        let name = mistakes.note("name", name.ok_or("must be one line of 1 to 200 characters"));
        let cents = (0..=100_000_000).contains(&self.cents).then_some(self.cents);
        let cents = mistakes.note("cents", cents.ok_or("must be from 0 to 100000000"));
        let stock = (0..=1_000_000).contains(&self.stock).then_some(self.stock);
        let stock = mistakes.note("stock", stock.ok_or("must be from 0 to 1000000"));
        let product = name.zip(cents).zip(stock);
        let product = product.map(|((name, cents), stock)| Product { id, name, cents, stock });
        mistakes.finish(product).map_err(Error::Invalid)
    }
}

/// A row of `orders`.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Order {
    /// Ours.
    pub id: Uuid,
    /// What was bought.
    pub product: i64,
    /// And how many of it.
    pub quantity: i32,
    /// When.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What a client orders.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `product` and `quantity`")]
pub struct OrderInput {
    product: i64,
    quantity: i32,
}

/// The same, checked, under the client's name for this request.
#[derive(Clone, Debug)]
pub struct NewOrder {
    /// The same for each attempt.
    pub key: String,
    /// Of which product.
    pub product: i64,
    /// From 1 to 10.
    pub quantity: i32,
}

impl OrderInput {
    /// Without a key, a client that has heard no answer would buy twice. So a key is required.
    pub fn parse(self, headers: &HeaderMap) -> Result<NewOrder> {
        // With two keys, which a proxy may have merged with a comma, a retry might be found under the other one.
        let is_key = |key: &&str| (1..=255).contains(&key.len()) && !key.contains([' ', '\t', ',']);
        let key = only(headers, KEY).filter(is_key).ok_or(Error::BAD_KEY)?.to_owned();
        let Self { product, quantity } = self;
        let mut mistakes = Mistakes::default();
        let few = (1..=10).contains(&quantity).then_some(quantity);
        let few = mistakes.note("quantity", few.ok_or("must be from 1 to 10"));
        let order = few.map(|quantity| NewOrder { key, product, quantity });
        mistakes.finish(order).map_err(Error::Invalid)
    }
}
