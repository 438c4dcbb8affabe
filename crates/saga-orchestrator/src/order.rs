//! What can be ordered? It is checked while it is read; behind the edge there is no bad order.

use std::fmt::Display;

use edge::text::is_line;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Of one sku, in an order or in stock.
pub const MAX_QUANTITY: i64 = 1_000_000;
/// A hundred million of the currency.
pub const MAX_AMOUNT: i64 = 10_000_000_000;

// ANCHOR: order
/// What a client sends to order, what is stored, and what participants are sent parts of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with the fields of an order")]
pub struct Order {
    /// Who orders. Customers are another service's: any id of the right form will do.
    #[serde(deserialize_with = "name")]
    pub customer_id: String,
    /// What, each sku once.
    #[serde(deserialize_with = "items")]
    pub items: Vec<Item>,
    /// For how much in all.
    #[serde(deserialize_with = "between::<_, 1, MAX_AMOUNT>")]
    pub amount_cents: i64,
    /// What is charged.
    #[serde(deserialize_with = "name")]
    pub payment_method: String,
    /// Where it goes.
    pub address: Address,
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `sku` and `quantity`")]
pub struct Item {
    /// What.
    #[serde(deserialize_with = "name")]
    pub sku: String,
    /// How many.
    #[serde(deserialize_with = "between::<_, 1, MAX_QUANTITY>")]
    pub quantity: i64,
}
// ANCHOR_END: order

/// Where a parcel goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `name`, `street`, `city` and `country`")]
pub struct Address {
    /// To whom.
    #[serde(deserialize_with = "line")]
    pub name: String,
    /// Street and number.
    #[serde(deserialize_with = "line")]
    pub street: String,
    /// City.
    #[serde(deserialize_with = "line")]
    pub city: String,
    /// Two capital letters, as in ISO 3166.
    #[serde(deserialize_with = "country")]
    pub country: String,
}

/// A value that is not as it should be is refused as one of a wrong type is: with the name of its field.
fn checked<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
    is_good: impl FnOnce(&T) -> bool,
    wrong: impl Display,
) -> Result<T, D::Error> {
    let value = T::deserialize(from)?;
    if is_good(&value) { Ok(value) } else { Err(D::Error::custom(wrong)) }
}

/// An identifier.
pub fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let wrong = "must be 1 to 64 characters, of letters, digits, '_', '-' and '.'";
    checked(from, |text: &String| is_name(text), wrong)
}

/// Whether it can be an identifier. A sku stands in paths, where `.` and `..` mean something else.
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(good) && !matches!(text, "." | "..")
}

/// What is printed on a label. Without a letter or a digit it would be empty there, such as a zero-width space.
fn line<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let is_good = |text: &String| {
        let is_trimmed = text.trim() == text && text.chars().count() <= 200;
        is_trimmed && is_line(text) && text.chars().any(char::is_alphanumeric)
    };
    checked(from, is_good, "must be 1 to 200 printable characters")
}

fn country<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let is_good =
        |text: &String| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    checked(from, is_good, "must be two capital letters")
}

/// A number from `LEAST` to `MOST`.
pub fn between<'de, D: Deserializer<'de>, const LEAST: i64, const MOST: i64>(
    from: D,
) -> Result<i64, D::Error> {
    checked(
        from,
        |number| (LEAST..=MOST).contains(number),
        format!("must be from {LEAST} to {MOST}"),
    )
}

/// The lines of an order.
pub fn items<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Item>, D::Error> {
    let is_good = |items: &Vec<Item>| {
        let mut before = items.iter().enumerate();
        let is_new = |(number, item): (usize, &Item)| {
            items[..number].iter().all(|other| other.sku != item.sku)
        };
        (1..=100).contains(&items.len()) && before.all(is_new)
    };
    checked(from, is_good, "must be 1 to 100, each sku once")
}

#[cfg(test)]
mod tests {
    use edge::json::{JsonRejection, parse};
    use serde_json::{Value, json};

    use super::*;

    /// The field that is named, after this change to a good order.
    fn wrong(change: impl FnOnce(&mut Value)) -> String {
        let mut order = json!({
            "customer_id": "c-1", "items": [{ "sku": "book", "quantity": 1 }], "amount_cents": 100,
            "payment_method": "pm_card_visa",
            "address": { "name": "Ada", "street": "1 Lane", "city": "London", "country": "GB" },
        });
        change(&mut order);
        match parse::<Order>(order.to_string().as_bytes()) {
            Err(JsonRejection::Invalid(error)) => error.field,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_good_order_is_good() {
        assert!(wrong(|_| {}).starts_with("Ok"));
    }

    #[test]
    fn each_mistake_is_named() {
        for quantity in [i64::MIN, -1, 0, MAX_QUANTITY + 1, i64::MAX] {
            let field = wrong(|order| order["items"][0]["quantity"] = quantity.into());
            assert_eq!(field, "items[0].quantity");
        }
        for amount in [i64::MIN, -1, 0, MAX_AMOUNT + 1, i64::MAX] {
            assert_eq!(wrong(|order| order["amount_cents"] = amount.into()), "amount_cents");
        }
        for sku in ["", ".", "..", "../etc", "a b", "a/b"] {
            let field = wrong(|order| order["items"][0]["sku"] = sku.into());
            assert_eq!(field, "items[0].sku", "{sku:?}");
        }
        for name in ["", " ", " Ada", "A\nda", "A\u{2028}da", "\u{200b}", "\u{2060}\u{feff}", "-"] {
            let field = wrong(|order| order["address"]["name"] = name.into());
            assert_eq!(field, "address.name", "{name:?}");
        }
        let twice = wrong(|order| {
            let item = order["items"][0].clone();
            order["items"] = json!([item, item]);
        });
        assert_eq!(twice, "items");
        assert_eq!(wrong(|order| order["items"] = json!([])), "items");
        assert_eq!(wrong(|order| order["address"]["country"] = "gb".into()), "address.country");
        assert_eq!(wrong(|order| order["customer_id"] = "a b".into()), "customer_id");
        assert_eq!(wrong(|order| order["payment_method"] = "".into()), "payment_method");
    }
}
