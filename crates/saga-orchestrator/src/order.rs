//! What can be ordered? Parsed once, at the edge; behind it there is no bad order.

use edge::{FieldError, text::is_line};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::Error;

/// Lines of an order.
const MAX_ITEMS: usize = 100;
/// Of one sku, in an order or in stock.
pub const MAX_QUANTITY: i64 = 1_000_000;
/// A hundred million of the currency.
const MAX_AMOUNT: i64 = 10_000_000_000;

/// What a client sends to order, what is stored, and what participants are sent parts of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `customer_id`, `items`, `amount_cents`, `payment_method` and `address`"
)]
pub struct Order {
    /// Who orders. Customers are another service's: any id of the right form will do.
    pub customer_id: String,
    /// What, each sku once.
    pub items: Vec<Item>,
    /// For how much in all.
    pub amount_cents: i64,
    /// What is charged.
    pub payment_method: String,
    /// Where it goes.
    pub address: Address,
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `sku` and `quantity`")]
pub struct Item {
    /// What.
    pub sku: String,
    /// How many.
    pub quantity: i64,
}

/// Where a parcel goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `name`, `street`, `city` and `country`")]
pub struct Address {
    /// To whom.
    pub name: String,
    /// Street and number.
    pub street: String,
    /// City.
    pub city: String,
    /// Two capital letters, as in ISO 3166.
    pub country: String,
}

// ANCHOR: parse_order
impl Order {
    /// Checks all fields, so that the client hears of all mistakes at once.
    pub fn parse(self) -> Result<Self, Error> {
        let mut errors = Errors::default();
        errors.name("customer_id", &self.customer_id);
        errors.items(&self.items);
        errors.range("amount_cents", self.amount_cents, 1, MAX_AMOUNT);
        errors.name("payment_method", &self.payment_method);
        self.address.check(&mut errors);
        errors.or(self)
    }
}
// ANCHOR_END: parse_order

impl Address {
    /// Checks all fields.
    pub fn check(&self, errors: &mut Errors) {
        for (field, value) in [("name", &self.name), ("street", &self.street), ("city", &self.city)]
        {
            let is_text = value.trim() == value && is_line(value);
            if value.is_empty() || value.chars().count() > 200 || !is_text {
                errors.add(format!("address.{field}"), "must be 1 to 200 printable characters");
            }
        }
        let is_country =
            |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
        if !is_country(&self.country) {
            errors.add("address.country", "must be two capital letters");
        }
    }
}

/// What was found wrong.
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    /// One more mistake.
    pub fn add(&mut self, field: impl Into<String>, message: &str) {
        self.0.push(FieldError::new(field, message));
    }

    /// Checks an identifier.
    pub fn name(&mut self, field: impl Into<String>, value: &str) {
        if !is_name(value) {
            self.add(field, "must be 1 to 64 characters, of letters, digits, '_', '-' and '.'");
        }
    }

    /// Checks a number.
    pub fn range(&mut self, field: impl Into<String>, value: i64, least: i64, most: i64) {
        if !(least..=most).contains(&value) {
            self.add(field, &format!("must be from {least} to {most}"));
        }
    }

    /// Checks the lines of an order.
    pub fn items(&mut self, items: &[Item]) {
        if items.is_empty() || items.len() > MAX_ITEMS {
            self.add("items", "must be 1 to 100");
        }
        for (number, item) in items.iter().take(MAX_ITEMS).enumerate() {
            self.name(format!("items[{number}].sku"), &item.sku);
            self.range(format!("items[{number}].quantity"), item.quantity, 1, MAX_QUANTITY);
            if items[..number].iter().any(|other| other.sku == item.sku) {
                self.add(format!("items[{number}].sku"), "is there twice; add the quantities up");
            }
        }
    }

    /// The value, if nothing was wrong.
    pub fn or<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(value) } else { Err(Error::Invalid(self.0)) }
    }
}

/// Whether it can be an identifier of ours.
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(good)
}

/// A stored request as what it was. The error is our own fault.
pub fn stored<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut order = json!({
            "customer_id": "c-1", "items": [{ "sku": "book", "quantity": 1 }], "amount_cents": 100,
            "payment_method": "pm_card_visa",
            "address": { "name": "Ada", "street": "1 Lane", "city": "London", "country": "GB" },
        });
        change(&mut order);
        match serde_json::from_value::<Order>(order).unwrap().parse() {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_good_order_is_good() {
        assert!(wrong(|_| {}).is_empty());
    }

    #[test]
    fn each_mistake_is_named() {
        for quantity in [i64::MIN, -1, 0, MAX_QUANTITY + 1, i64::MAX] {
            let fields = wrong(|order| order["items"][0]["quantity"] = quantity.into());
            assert_eq!(fields, ["items[0].quantity"]);
        }
        for amount in [i64::MIN, -1, 0, MAX_AMOUNT + 1, i64::MAX] {
            assert_eq!(wrong(|order| order["amount_cents"] = amount.into()), ["amount_cents"]);
        }
        let twice = wrong(|order| {
            let item = order["items"][0].clone();
            order["items"] = json!([item, item]);
        });
        assert_eq!(twice, ["items[1].sku"]);
        assert_eq!(wrong(|order| order["items"] = json!([])), ["items"]);
        assert_eq!(wrong(|order| order["address"]["country"] = "gb".into()), ["address.country"]);
        assert_eq!(wrong(|order| order["address"]["city"] = "".into()), ["address.city"]);
        let many = wrong(|order| {
            order["customer_id"] = "a b".into();
            order["payment_method"] = "".into();
        });
        assert_eq!(many, ["customer_id", "payment_method"]);
    }
}
