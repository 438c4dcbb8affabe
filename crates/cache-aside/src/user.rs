//! What is a user, and which of them can there be?

use edge::text::is_line;
use serde::Serialize;
use time::OffsetDateTime;
use unicode_normalization::UnicodeNormalization;

/// RFC 5321 leaves 254 bytes for what stands between the angle brackets of an address.
const MAX_EMAIL: usize = 254;
const MAX_NAME: usize = 200;

/// What a user is found by: a positive number that PostgreSQL's `bigint` can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[sqlx(transparent)]
pub struct UserId(i64);

impl UserId {
    /// Parses decimal digits, in the one way to write them: each other way would be another key in the cache, which
    /// no change deletes.
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
    /// As its owner writes it. Nobody else has it.
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

/// Which versions of a user a change is meant for: `If-Match`.
#[derive(Clone, Debug)]
pub enum IfMatch {
    /// `*`: whatever is there.
    Any,
    /// One of these.
    Versions(Vec<i64>),
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

/// An address that a message could be sent to. Only a message can tell whether somebody reads it.
#[derive(Clone, Debug)]
pub struct Email {
    shown: String,
    key: String,
}

impl Email {
    // ANCHOR: email
    /// Parses what a client sent. The error says what is wrong.
    pub fn parse(input: &str) -> Result<Self, &'static str> {
        if input.len() > MAX_EMAIL {
            return Err("must be at most 254 bytes");
        }
        let shown: String = input.nfc().collect();
        let (local, domain) = shown.rsplit_once('@').ok_or("must have an '@'")?;
        let odd = |c: char| c.is_control() || c.is_whitespace() || "@<>(),;:\\\"[]".contains(c);
        let gaps = |part: &str| part.split('.').any(str::is_empty);
        if local.is_empty() || local.len() > 64 || local.contains(odd) || gaps(local) {
            return Err("must have 1 to 64 usual characters before the '@'");
        }
        let ascii = idna::domain_to_ascii(domain).unwrap_or_default();
        if domain.contains(odd) || gaps(domain) || gaps(&ascii) || !ascii.contains('.') {
            return Err("must have a domain after the '@'");
        }
        // Up and then down: `ß` meets `SS`, as in Unicode's full case folding. PostgreSQL's `lower` depends on the
        // locale of the database, and folds only ASCII under `C`.
        let folded: String = local.to_uppercase().to_lowercase().nfc().collect();
        let key = format!("{folded}@{ascii}");
        Ok(Self { shown, key })
    }
    // ANCHOR_END: email

    /// As its owner writes it.
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// The same for all spellings of one mailbox: what may be there only once.
    pub fn key(&self) -> &str {
        &self.key
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
            "a@xn--.example",
            &long,
        ] {
            assert!(Email::parse(input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn all_spellings_of_one_mailbox_have_one_key() {
        for (one, other) in [
            ("jörg@example.org", "JÖRG@example.org"),
            ("jörg@example.org", "jo\u{308}rg@Example.ORG"),
            ("strauß@example.org", "STRAUSS@example.org"),
            ("ΟΔΟΣ@example.org", "οδος@example.org"),
            ("a@bücher.example", "A@xn--bcher-kva.example"),
            ("a@BU\u{308}CHER.example", "a@XN--BCHER-KVA.EXAMPLE"),
        ] {
            let [one, other] = [one, other].map(|it| Email::parse(it).unwrap());
            assert_eq!(one.key(), other.key());
        }
        let [one, other] = ["a@b.example", "á@b.example"].map(|it| Email::parse(it).unwrap());
        assert_ne!(one.key(), other.key());
    }

    #[test]
    fn a_name_is_trimmed_and_has_no_control_characters() {
        assert_eq!(Name::parse("  Ada ").unwrap().as_str(), "Ada");
        for input in ["", "  ", "a\0b", "a\nb", "\u{1b}[2J", &"x".repeat(201)] {
            assert!(Name::parse(input).is_err(), "{input:?}");
        }
    }
}
