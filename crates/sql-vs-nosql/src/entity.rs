//! What is kept about a customer and a product? A few fields that every reader knows, and whatever else a client sends.

use edge::{Mistakes, text::is_line};
use serde_json::Value;

use crate::error::{Error, Result};
pub use crate::schema::Fields;
use crate::schema::today;

/// 2⁵³ − 1: the largest whole number that every reader of JSON reads exactly.
pub const MOST: i64 = 9_007_199_254_740_991;

/// What the shop knows beside its orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody who buys.
    Customer,
    /// Something that is bought.
    Product,
}

/// A field, what has to hold for it, and what its sender is told if that does not hold. Money is in whole cents: a float
/// has no 0.10.
type Rule = (&'static str, fn(&Value) -> bool, &'static str);

const NAME: Rule = ("name", is_name, "must be one line of 1 to 200 characters");
const COUNTRY: Rule = ("country", is_country, "must be two capital letters");
const PHONES: Rule = ("phones", are_phones, "must be a list of at most 10 short lines");
const PRICE: Rule = ("price_cents", is_price, "must be whole cents, from 1 to 1000000000");

impl Kind {
    /// What it is called in a key or a document.
    pub fn name(self) -> &'static str {
        if self == Self::Customer { "customer" } else { "product" }
    }

    /// The number that orders change. No client writes it, or an old copy could undo an order.
    pub fn amount(self) -> &'static str {
        if self == Self::Customer { "balance_cents" } else { "stock" }
    }

    /// The fields that have to be there.
    fn rules(self) -> &'static [Rule] {
        if self == Self::Customer { &[NAME, COUNTRY, PHONES] } else { &[NAME, PRICE] }
    }

    // ANCHOR: checked
    /// The fields as today's program wants them, if they are right. Fields that it does not know are kept. All mistakes
    /// are told at once.
    pub fn checked(self, fields: Fields) -> Result<Fields> {
        let fields = if self == Self::Customer { today(fields)? } else { fields };
        let mut mistakes = Mistakes::default();
        for &(name, holds, says) in self.rules() {
            mistakes.note(name, fields.get(name).filter(|it| holds(it)).ok_or(says));
        }
        for (name, value) in &fields {
            let ours = name == "id" || name == self.amount();
            mistakes.note(name, (!ours).then_some(()).ok_or("is the shop's own"));
            let kept = is_kept(value) && !name.contains('\0');
            let says = "holds a NUL, or a number beyond 2^53: send that as text";
            mistakes.note(name, kept.then_some(()).ok_or(says));
        }
        mistakes.finish(Some(fields)).map_err(Error::Invalid)
    }
    // ANCHOR_END: checked

    /// Whether the shop knows this field. All others are fields that nobody planned.
    pub fn is_planned(self, name: &str) -> bool {
        name == "id" || name == self.amount() || self.rules().iter().any(|rule| rule.0 == name)
    }
}

/// What every store and every reader keeps as it was sent. PostgreSQL's jsonb takes no NUL, and a program that reads
/// numbers as doubles rounds what is larger than 2⁵³. An object like `{"$gt": ""}` is a value like others.
fn is_kept(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains('\0'),
        Value::Number(number) => number.as_f64().is_some_and(|it| it.abs() <= MOST as f64),
        Value::Array(items) => items.iter().all(is_kept),
        Value::Object(all) => all.iter().all(|(name, it)| !name.contains('\0') && is_kept(it)),
        Value::Null | Value::Bool(_) => true,
    }
}

fn is_short(value: &Value, longest: usize) -> bool {
    let fits = |it: &str| !it.trim().is_empty() && it.chars().count() <= longest && is_line(it);
    value.as_str().is_some_and(fits)
}

fn is_name(value: &Value) -> bool {
    is_short(value, 200)
}

fn is_country(value: &Value) -> bool {
    value.as_str().is_some_and(|it| it.len() == 2 && it.bytes().all(|it| it.is_ascii_uppercase()))
}

fn are_phones(value: &Value) -> bool {
    value.as_array().is_some_and(|it| it.len() <= 10 && it.iter().all(|it| is_short(it, 40)))
}

fn is_price(value: &Value) -> bool {
    value.as_i64().is_some_and(|cents| (1..=1_000_000_000).contains(&cents))
}

/// An id that a client chose: it is a part of URLs and of keys.
pub fn is_id(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong(kind: Kind, fields: &Value) -> Vec<String> {
        match kind.checked(fields.as_object().unwrap().clone()) {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|it| it.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn what_nobody_planned_is_kept_and_an_operator_is_a_value() {
        let odd = json!({"name": "Ada", "country": "GB", "phones": [], "a.b": 1, "$set": {"$gt": ""}, "": null});
        let kept = Kind::Customer.checked(odd.as_object().unwrap().clone()).unwrap();
        assert_eq!(Value::from(kept), odd);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let fields =
            json!({"name": "", "country": "gb", "phones": "1", "id": "x", "balance_cents": 1});
        let all = ["name", "country", "phones", "balance_cents", "id"];
        assert_eq!(wrong(Kind::Customer, &fields), all);
        for price in [json!(0), json!(0.1 + 0.2), json!("1"), json!(1e300), json!(null)] {
            let fields = json!({"name": "tea", "price_cents": price, "stock": 1});
            assert!(wrong(Kind::Product, &fields).contains(&"price_cents".to_owned()), "{price}");
            assert!(wrong(Kind::Product, &fields).contains(&"stock".to_owned()));
        }
    }

    #[test]
    fn what_a_store_or_a_reader_would_change_is_refused() {
        for value in [json!("a\0b"), json!(MOST + 1), json!([{"a": 1e17}]), json!({"\0": 1})] {
            let fields = json!({"name": "tea", "price_cents": 1, "odd": value});
            assert_eq!(wrong(Kind::Product, &fields), ["odd"], "{value}");
        }
        let fields = json!({"name": "tea", "price_cents": 1, "odd": [MOST, -MOST, 0.1]});
        assert_eq!(wrong(Kind::Product, &fields), [""; 0]);
    }

    #[test]
    fn an_id_is_short_and_plain() {
        for id in ["a", "ada-1", &"x".repeat(64)] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", "A", "a.b", "a b", "ä", "a:b", "a\0", &"x".repeat(65)] {
            assert!(!is_id(id), "{id}");
        }
    }
}
