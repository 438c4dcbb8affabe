//! What is an e-mail address?

/// The longest that fits a mail server's envelope: RFC 5321, section 4.5.3.1.3, without the brackets.
const MAX_LENGTH: usize = 254;
const MAX_LOCAL: usize = 64;
const MAX_LABEL: usize = 63;

/// An e-mail address in lower case. In theory the part before the `@` may differ by case only; in practice
/// it is one person who typed it twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    // ANCHOR: parse_email
    /// Parses what browsers accept in `<input type="email">` (WHATWG HTML, section 4.10.5.1.5). RFC 5322
    /// allows comments and quoted spaces too, which nobody has and which help attackers only.
    pub fn parse(input: &str) -> Result<Self, &'static str> {
        let (local, domain) = input.rsplit_once('@').ok_or("must be an address with an @")?;
        let local_character =
            |c: char| c.is_ascii_alphanumeric() || ".!#$%&'*+/=?^_`{|}~-".contains(c);
        let is_label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if input.len() > MAX_LENGTH || local.len() > MAX_LOCAL {
            return Err("is too long for an address");
        }
        if local.is_empty() || !local.chars().all(local_character) {
            return Err("has a character before the @ that we do not take");
        }
        if !domain.split('.').all(is_label) {
            return Err("has no domain after the @");
        }
        Ok(Self(input.to_ascii_lowercase()))
    }
    // ANCHOR_END: parse_email

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_people_have_are_taken() {
        for input in ["a@b", "ann@example.com", "a.b+c@mail.example.co.uk", "o'neil@x-y.example"] {
            assert!(Email::parse(input).is_ok(), "{input}");
        }
        assert_eq!(Email::parse("Ann@Example.COM"), Email::parse("ann@example.com"));
    }

    #[test]
    fn anything_else_is_refused() {
        for input in [
            "",
            "@",
            "ann",
            "ann@",
            "@example.com",
            "a b@example.com",
            "a@b@c",
            "a@-b.example",
            "a@b..example",
            "a@b.example.",
            "a\0@example.com",
            "a@example.com\n",
            "ü@example.com",
            "\"a b\"@example.com",
            &format!("{}@example.com", "a".repeat(65)),
            &format!("a@{}.example", "b".repeat(64)),
            &format!("a@{}", ["b".repeat(60), "c".repeat(60)].join(".").repeat(3)),
        ] {
            assert!(Email::parse(input).is_err(), "{input:?}");
        }
    }
}
