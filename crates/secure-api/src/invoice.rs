//! What may a client write, and what does it see? Types that have just these fields, and no others.

use edge::text::is_line;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use uuid::Uuid;

/// An invoice as its customer sees it. The row has more columns, and a new one is shown only when it is added here.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Invoice {
    /// Ours.
    pub id: Uuid,
    /// One line.
    pub title: String,
    /// One line, perhaps empty.
    pub note: String,
    /// At least one.
    pub amount_cents: i64,
    /// An earlier invoice of the same customer.
    pub corrects: Option<Uuid>,
    /// Whether we have the money. Nobody says so over this API.
    pub paid: bool,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

// ANCHOR: input
/// All that a client decides of a new invoice. There is no `paid` and no `customer_id` to forget about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `title` and `amount_cents`")]
pub struct InvoiceInput {
    /// One line, and not blank.
    pub title: Line<1, 200>,
    /// At least one.
    pub amount_cents: Cents,
    /// One line.
    #[serde(default)]
    pub note: Line<0, 2_000>,
    /// Whether it is the customer's own, the database says.
    #[serde(default)]
    pub corrects: Option<Uuid>,
}

/// All that a client may change of one. What is not there stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `title` or `note`")]
pub struct Change {
    /// One line, and not blank.
    pub title: Option<Line<1, 200>>,
    /// One line.
    pub note: Option<Line<0, 2_000>>,
}
// ANCHOR_END: input

// ANCHOR: line
/// One printable line, of so many characters. A value of this type was checked: there is no other way to make one.
#[derive(Debug, Default, Deserialize, sqlx::Type)]
#[serde(try_from = "String")]
#[sqlx(transparent)]
pub struct Line<const LEAST: usize, const MOST: usize>(String);

impl<const LEAST: usize, const MOST: usize> TryFrom<String> for Line<LEAST, MOST> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = (LEAST..=MOST).contains(&text.chars().count()) && is_line(&text);
        if fits && (LEAST == 0 || !text.trim().is_empty()) {
            return Ok(Self(text));
        }
        Err(format!("must be {LEAST} to {MOST} characters on one line, and not blank"))
    }
}
// ANCHOR_END: line

/// An amount of money: something, and not more than there is.
#[derive(Clone, Copy, Debug, Deserialize, sqlx::Type)]
#[serde(try_from = "i64")]
#[sqlx(transparent)]
pub struct Cents(i64);

impl TryFrom<i64> for Cents {
    type Error = &'static str;

    fn try_from(cents: i64) -> Result<Self, &'static str> {
        let fits = (1..=100_000_000_000).contains(&cents);
        fits.then_some(Self(cents)).ok_or("must be from 1 to 10¹¹")
    }
}

#[cfg(test)]
mod tests {
    use edge::json::{JsonRejection, parse};
    use serde_json::{Value, json};

    use super::*;

    /// The field that is wrong.
    fn wrong<T: serde::de::DeserializeOwned>(body: &Value) -> String {
        match parse::<T>(body.to_string().as_bytes()) {
            Err(JsonRejection::Invalid(error)) => error.field,
            Err(other) => other.to_string(),
            Ok(_) => String::new(),
        }
    }

    #[test]
    fn a_value_that_cannot_be_is_named() {
        let create = |field: &str, value: Value| {
            let mut body = json!({ "title": "Tea", "amount_cents": 1 });
            body[field] = value;
            wrong::<InvoiceInput>(&body)
        };
        assert_eq!(create("title", json!("ü".repeat(200))), "");
        assert_eq!(create("note", json!("")), "");
        for title in ["", " ", "a\nb", "a\0b", "a\u{2028}b", &"x".repeat(201)] {
            assert_eq!(create("title", json!(title)), "title", "{title:?}");
        }
        assert_eq!(create("note", json!("a\rb")), "note");
        for cents in [json!(0), json!(-1), json!(1.5), json!("1"), json!(100_000_000_001_i64)] {
            assert_eq!(create("amount_cents", cents), "amount_cents");
        }
        assert_eq!(create("corrects", json!("x")), "corrects");
    }

    #[test]
    fn a_field_that_may_not_be_written_is_no_field() {
        for field in ["paid", "customer_id", "margin_cents", "id", "created_at", "role"] {
            let create = json!({ "title": "Tea", "amount_cents": 1, field: 1 });
            assert_eq!(wrong::<InvoiceInput>(&create), field);
            assert_eq!(wrong::<Change>(&json!({ "title": "Tea", field: 1 })), field);
        }
    }
}
