//! Which spellings of an e-mail address are one mailbox?

use unicode_normalization::UnicodeNormalization;

/// RFC 5321 allows 254 bytes between the angle brackets of an address.
const MAX_EMAIL: usize = 254;

/// A well-formed e-mail address. Only sending a message can show whether somebody reads it.
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
        // To upper case and then to lower case, so that `ß` and `SS` become equal, as in Unicode's full case folding.
        // PostgreSQL's `lower` depends on the locale of the database, and folds only ASCII under `C`.
        let folded: String = local.to_uppercase().to_lowercase().nfc().collect();
        let key = format!("{folded}@{ascii}");
        Ok(Self { shown, key })
    }
    // ANCHOR_END: email

    /// As its owner writes it.
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// The same for all spellings of one mailbox: the column that must be unique.
    pub fn key(&self) -> &str {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
