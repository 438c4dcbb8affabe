//! What does an order take, and when is it refused? The same answer for every store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use uuid::Uuid;

use crate::entity::{Fields, is_id};
use crate::error::{Error, Result};

/// What a client wants: how many of each product, in the order of their ids.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `customer` and `lines`")]
pub struct Request {
    /// Who buys.
    pub customer: String,
    /// What.
    pub lines: BTreeMap<String, i64>,
}

impl Request {
    /// Itself, if something can be ordered like this.
    pub fn parse(self) -> Result<Self> {
        if !is_id(&self.customer) {
            return Err(Error::invalid("customer", "is no customer"));
        }
        if !(1..=20).contains(&self.lines.len()) {
            return Err(Error::invalid("lines", "must be 1 to 20"));
        }
        let good = |(id, many): &(&String, &i64)| is_id(id) && (1..=1_000).contains(*many);
        match self.lines.iter().find(|line| !good(line)) {
            Some((id, _)) => Err(Error::invalid(format!("lines.{id}"), "must be 1 to 1000")),
            None => Ok(self),
        }
    }
}

/// What was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Order {
    /// Ours; a later one is larger.
    pub id: String,
    /// Who bought.
    pub customer: String,
    /// When.
    #[serde(with = "rfc3339")]
    pub ordered_at: OffsetDateTime,
    /// What it cost.
    pub total_cents: i64,
    /// What was bought.
    #[sqlx(json)]
    pub lines: Vec<Line>,
}

/// One line of an order. Name and price are those of that day: this copy must not follow the product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which product.
    pub product: String,
    /// What it was called.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// What one of them cost.
    pub price_cents: i64,
}

// ANCHOR: priced
impl Request {
    /// The order, if the customer can pay for it and all of it is there. What was read for this must not change before
    /// the order is written: each store has its own way to see to that.
    pub fn priced(
        &self,
        customer: Option<&Fields>,
        products: &BTreeMap<String, Fields>,
    ) -> Result<Order> {
        let number = |fields: &Fields, name: &str| fields[name].as_i64().unwrap_or_default();
        let customer = customer.ok_or_else(|| Error::invalid("customer", "is no customer"))?;
        let mut lines = Vec::new();
        for (product, &quantity) in &self.lines {
            let Some(found) = products.get(product) else {
                return Err(Error::invalid("lines", format!("there is no product {product}")));
            };
            if number(found, "stock") < quantity {
                return Err(Error::OUT_OF_STOCK);
            }
            let name = found["name"].as_str().unwrap_or_default().to_owned();
            let (product, price_cents) = (product.clone(), number(found, "price_cents"));
            lines.push(Line { product, name, quantity, price_cents });
        }
        let total_cents = lines.iter().map(|line| line.quantity * line.price_cents).sum();
        if total_cents > number(customer, "balance_cents") {
            return Err(Error::NO_MONEY);
        }
        let now = OffsetDateTime::now_utc();
        // PostgreSQL keeps microseconds, and every store shall say the same.
        let ordered_at = now.replace_nanosecond(now.microsecond() * 1_000).unwrap_or(now);
        let (id, customer) = (Uuid::now_v7().to_string(), self.customer.clone());
        Ok(Order { id, customer, ordered_at, total_cents, lines })
    }
}
// ANCHOR_END: priced

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde_json::{Value, json};

    use super::*;

    fn input(value: Value) -> Result<Request> {
        serde_json::from_value::<Request>(value).unwrap().parse()
    }

    fn fields(value: &Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    fn product(id: &str, price_cents: i64, stock: i64) -> (String, Fields) {
        let name = id.to_uppercase();
        let product = json!({"name": name, "price_cents": price_cents, "stock": stock});
        (id.to_owned(), fields(&product))
    }

    fn balance(cents: i64) -> Fields {
        fields(&json!({"balance_cents": cents}))
    }

    fn status(order: Result<Order>) -> u16 {
        order.map_or_else(|error| error.into_response().status().as_u16(), |_| 201)
    }

    #[test]
    fn an_order_takes_what_it_names_at_todays_price() {
        let request = input(json!({"customer": "ada", "lines": {"tea": 2, "cup": 1}}));
        let products = BTreeMap::from([product("cup", 900, 1), product("tea", 250, 2)]);
        let order = request.unwrap().priced(Some(&balance(1_400)), &products).unwrap();
        assert_eq!(order.total_cents, 1_400);
        assert_eq!(order.lines[0].product, "cup");
        assert_eq!((order.lines[1].name.as_str(), order.lines[1].price_cents), ("TEA", 250));
    }

    #[test]
    fn what_is_not_there_or_cannot_be_paid_is_refused() {
        let request = input(json!({"customer": "ada", "lines": {"tea": 2}}));
        let request = request.unwrap();
        for (cents, stock, expected) in
            [(Some(500), 2, 201), (Some(499), 2, 409), (Some(500), 1, 409), (None, 2, 422)]
        {
            let products = BTreeMap::from([product("tea", 250, stock)]);
            let order = request.priced(cents.map(balance).as_ref(), &products);
            assert_eq!(status(order), expected, "{cents:?} {stock}");
        }
        assert_eq!(status(request.priced(Some(&balance(500)), &BTreeMap::new())), 422);
        // Each line alone could be paid, and both together cannot.
        let request = input(json!({"customer": "ada", "lines": {"tea": 2, "cup": 1}})).unwrap();
        let products = BTreeMap::from([product("cup", 900, 1), product("tea", 250, 2)]);
        assert_eq!(status(request.priced(Some(&balance(1_399)), &products)), 409);
    }

    #[test]
    fn what_can_be_no_order_is_refused() {
        let many: BTreeMap<_, _> = (0..21).map(|n| (format!("p{n}"), 1)).collect();
        for lines in [
            json!({}),
            json!(many),
            json!({"tea": 0}),
            json!({"tea": -1}),
            json!({"tea": 1001}),
            json!({"Tea": 1}),
        ] {
            assert!(input(json!({"customer": "ada", "lines": lines})).is_err(), "{lines}");
        }
        assert!(input(json!({"customer": "Ada", "lines": {"tea": 1}})).is_err());
    }
}
