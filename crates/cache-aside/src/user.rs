//! What is a user, and which ids and names are valid?

pub use edge::email::Email;
use edge::text::is_line;
use serde::Serialize;
use time::OffsetDateTime;

const MAX_NAME: usize = 200;

/// What a user is found by: a positive number that PostgreSQL's `bigint` can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[sqlx(transparent)]
pub struct UserId(i64);

impl UserId {
    /// Parses decimal digits without a sign or zeros in front. Another spelling would be another key in the cache,
    /// which no change deletes.
    pub fn parse(input: &str) -> Option<Self> {
        let id: i64 = input.parse().ok()?;
        (id > 0 && id.to_string() == input).then_some(Self(id))
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// A user, as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct User {
    /// Given by the database.
    pub id: UserId,
    /// What others see.
    pub name: String,
    /// The e-mail address, as its owner writes it. No other user has it.
    pub email: String,
    /// Counts the changes. Clients see it as the `ETag`.
    #[serde(skip)]
    pub version: i64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A name that can be shown.
#[derive(Clone, Debug)]
pub struct Name(String);

impl Name {
    /// Parses what a client sent. The error says what is wrong.
    pub fn parse(input: &str) -> Result<Self, &'static str> {
        let name = input.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME {
            return Err("must be 1 to 200 characters");
        }
        if !is_line(name) {
            return Err("must be one line, without control characters");
        }
        Ok(Self(name.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_positive_number_written_in_the_one_way() {
        for input in ["1", "42", "9223372036854775807"] {
            assert_eq!(UserId::parse(input).unwrap().get().to_string(), input);
        }
        for input in
            ["", "0", "-1", "+1", "01", "1.0", "1e3", " 1", "x", "9223372036854775808", "٣"]
        {
            assert!(UserId::parse(input).is_none(), "{input:?}");
        }
    }

    #[test]
    fn a_name_is_trimmed_and_has_no_control_characters() {
        assert_eq!(Name::parse("  Ada ").unwrap().as_str(), "Ada");
        for input in ["", "  ", "a\0b", "a\nb", "\u{1b}[2J", &"x".repeat(201)] {
            assert!(Name::parse(input).is_err(), "{input:?}");
        }
    }
}
