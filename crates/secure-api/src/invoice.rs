//! What may a client write, and what does it see? Types that have just these fields, and no others.

use edge::{Mistakes, text::is_line};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use uuid::Uuid;

use crate::error::{Error, Result};

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
    title: String,
    amount_cents: i64,
    #[serde(default)]
    note: String,
    #[serde(default)]
    corrects: Option<Uuid>,
}

/// All that a client may change of one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `title` or `note`")]
pub struct Change {
    title: Option<String>,
    note: Option<String>,
}
// ANCHOR_END: input

/// A new invoice, checked.
#[derive(Debug)]
pub struct NewInvoice {
    /// One line.
    pub title: String,
    /// One line.
    pub note: String,
    /// At least one.
    pub amount_cents: i64,
    /// Whether it is the customer's own, the database says.
    pub corrects: Option<Uuid>,
}

/// A change, checked. What is not there stays.
#[derive(Debug)]
pub struct NewText {
    /// One line.
    pub title: Option<String>,
    /// One line.
    pub note: Option<String>,
}

impl InvoiceInput {
    /// Parses all fields, so that the client hears of all mistakes at once.
    pub fn parse(self) -> Result<NewInvoice> {
        let mut mistakes = Mistakes::default();
        let title = mistakes.note("title", title(self.title));
        let note = mistakes.note("note", note(self.note));
        let amount = (1..=100_000_000_000).contains(&self.amount_cents);
        let amount = amount.then_some(self.amount_cents).ok_or("must be from 1 to 10¹¹");
        let amount = mistakes.note("amount_cents", amount);
        let corrects = self.corrects;
        let new = title.zip(note).zip(amount);
        let new = new.map(|((title, note), amount_cents)| NewInvoice {
            title,
            note,
            amount_cents,
            corrects,
        });
        mistakes.finish(new).map_err(Error::Invalid)
    }
}

impl Change {
    /// Parses all fields that are there.
    pub fn parse(self) -> Result<NewText> {
        let mut mistakes = Mistakes::default();
        let title = self.title.map(|text| mistakes.note("title", title(text)));
        let note = self.note.map(|text| mistakes.note("note", note(text)));
        let new = NewText { title: title.flatten(), note: note.flatten() };
        mistakes.finish(Some(new)).map_err(Error::Invalid)
    }
}

fn title(text: String) -> std::result::Result<String, &'static str> {
    let good = !text.trim().is_empty() && text.chars().count() <= 200 && is_line(&text);
    good.then_some(text).ok_or("must be 1 to 200 characters on one line")
}

fn note(text: String) -> std::result::Result<String, &'static str> {
    let good = text.chars().count() <= 2_000 && is_line(&text);
    good.then_some(text).ok_or("must be at most 2,000 characters on one line")
}

#[cfg(test)]
mod tests {
    use edge::json::parse;
    use serde_json::{Value, json};

    use super::*;

    fn wrong(error: Error) -> Vec<String> {
        match error {
            Error::Invalid(errors) => errors.into_iter().map(|error| error.field).collect(),
            other => vec![other.to_string()],
        }
    }

    fn create(body: &Value) -> Vec<String> {
        let input: InvoiceInput = parse(body.to_string().as_bytes()).unwrap();
        input.parse().err().map(wrong).unwrap_or_default()
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        assert_eq!(create(&json!({ "title": "Tea", "amount_cents": 1 })), [""; 0]);
        let bad = json!({ "title": " ", "note": "a\nb", "amount_cents": 0 });
        assert_eq!(create(&bad), ["title", "note", "amount_cents"]);
    }

    #[test]
    fn a_field_that_may_not_be_written_is_no_field() {
        for field in ["paid", "customer_id", "margin_cents", "id", "created_at", "role"] {
            let body = json!({ "title": "Tea", "amount_cents": 1, field: 1 }).to_string();
            assert!(parse::<InvoiceInput>(body.as_bytes()).is_err(), "{field}");
            let body = json!({ "title": "Tea", field: 1 }).to_string();
            assert!(parse::<Change>(body.as_bytes()).is_err(), "{field}");
        }
    }
}
