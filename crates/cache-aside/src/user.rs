//! What is a user, and which of them can there be?

use edge::text::is_line;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// As a mail server counts: RFC 5321 leaves 254 bytes for what stands between its angle brackets.
const MAX_EMAIL: usize = 254;
const MAX_NAME: usize = 200;

/// What a user is found by: a positive number that PostgreSQL's `bigint` can hold.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[sqlx(transparent)]
pub struct UserId(i64);

impl UserId {
    /// Parses decimal digits, in the one way to write them: a resource has one address.
    pub fn parse(input: &str) -> Option<Self> {
        let id: i64 = input.parse().ok()?;
        (id > 0 && id.to_string() == input).then_some(Self(id))
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// A user, as it is kept, cached and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct User {
    /// Given by the database.
    pub id: UserId,
    /// What others see.
    pub name: String,
    /// Nobody else has it.
    pub email: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A user as JSON. What is cached is what is sent: a hit is neither parsed nor written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserJson(String);

impl UserJson {
    /// This user's.
    pub fn of(user: &User) -> Result<Self, serde_json::Error> {
        serde_json::to_string(user).map(Self)
    }

    /// From where it was kept. Whoever kept it vouches that it is a user's.
    pub fn kept(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(|text| Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text itself.
    pub fn into_string(self) -> String {
        self.0
    }
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

/// An address that a message could be sent to. Whether somebody reads it, only a message can tell.
#[derive(Clone, Debug)]
pub struct Email(String);

impl Email {
    /// Parses what a client sent. The error says what is wrong.
    pub fn parse(input: &str) -> Result<Self, &'static str> {
        if input.len() > MAX_EMAIL {
            return Err("must be at most 254 bytes");
        }
        let Some((local, domain)) = input.rsplit_once('@') else {
            return Err("must have an '@'");
        };
        let odd = |c: char| c.is_control() || c.is_whitespace() || "@<>(),;:\\\"[]".contains(c);
        let dots = |part: &str| part.split('.').any(str::is_empty);
        if local.is_empty() || local.len() > 64 || local.contains(odd) || dots(local) {
            return Err("must have 1 to 64 usual characters before the '@'");
        }
        if domain.contains(odd) || dots(domain) || !domain.contains('.') {
            return Err("must have a domain after the '@'");
        }
        Ok(Self(input.to_owned()))
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
    fn an_email_address_has_a_place_and_a_domain() {
        for input in ["a@b.example", "Ada.Lovelace+x@mail.example.org", "ö@bücher.example"] {
            assert!(Email::parse(input).is_ok(), "{input}");
        }
        let long = format!("{}@b.example", "a".repeat(300));
        for input in [
            "",
            "@",
            "a",
            "a@",
            "@b.example",
            "a@b",
            "a b@c.example",
            "a@b@c.example",
            "a@b..example",
            "a@.example",
            "a@b.example\n",
            "a\0@b.example",
            "<a@b.example>",
            &long,
        ] {
            assert!(Email::parse(input).is_err(), "{input:?}");
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
