//! How does a long URL become seven letters, and which codes may clients choose for themselves?

use serde::Serialize;

use crate::error::Error;

/// How many codes of seven base62 characters there are: 62⁷, 3.5 trillion.
pub const CODES: u64 = 62_u64.pow(7);
const LENGTH: usize = 7;
/// Paths of the service, and names that may become paths later: an alias made today must still work then.
const RESERVED: [&str; 7] = ["about", "admin", "api", "healthz", "links", "metrics", "readyz"];

/// A name of a link: seven characters that we made, or an alias that somebody chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, sqlx::Type)]
#[sqlx(transparent)]
pub struct Code(String);

impl Code {
    /// A string that may be a link's code. Any other string gets 404 without a question to the database.
    pub fn parse(text: String) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        ((3..=32).contains(&text.len()) && text.bytes().all(allowed)).then_some(Self(text))
    }

    /// A code that a client chose. Aliases and generated codes share one table, and the first link with a code owns it.
    /// The error says what is wrong.
    pub fn alias(text: String) -> Result<Self, &'static str> {
        if RESERVED.contains(&&*text) {
            return Err("is reserved");
        }
        Self::parse(text).ok_or("must be 3 to 32 characters: letters, digits, '_' and '-'")
    }

    /// The number in base62, with zeros in front.
    pub fn from_number(number: u64) -> Self {
        Self(format!("{:0>LENGTH$}", base62::encode(number)))
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// ANCHOR: crc32_code
/// The textbook's code: a checksum of the URL. Salt 0 is the bare URL; the other salts give further codes, for
/// when the first is taken.
///
/// The modulo is here because the textbook has it. It changes nothing, since 2³² < 62⁷.
pub fn crc32_code(url: &str, salt: u32) -> Code {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(url.as_bytes());
    if salt > 0 {
        // CRC32 is linear: two URLs that collide still collide when the same salt is appended to both. The
        // salt finds another code for the loser; the winner keeps the first one.
        checksum.update(&salt.to_be_bytes());
    }
    Code::from_number(u64::from(checksum.finalize()) % CODES)
}
// ANCHOR_END: crc32_code

/// A random code. 2⁶⁴ is no multiple of 62⁷, so some codes are likelier than others, by one part in five million.
pub fn random_code() -> Result<Code, Error> {
    getrandom::u64().map(|number| Code::from_number(number % CODES)).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        // The check value of CRC-32/ISO-HDLC: crc32("123456789") = 0xcbf43926.
        assert_eq!(crc32_code("123456789", 0), Code::from_number(0xcbf4_3926));
    }

    #[test]
    fn the_first_and_the_last_number_have_seven_characters() {
        assert_eq!(Code::from_number(0).as_str(), "0000000");
        assert_eq!(Code::from_number(CODES - 1).as_str(), "zzzzzzz");
    }

    #[test]
    fn urls_that_collide_go_on_colliding_under_every_salt() {
        // Two words that are known to have the same CRC32.
        let (one, two) = ("plumless", "buckeroo");
        assert_eq!(crc32_code(one, 0), crc32_code(two, 0));
        for salt in 1..100 {
            assert_eq!(crc32_code(one, salt), crc32_code(two, salt));
        }
    }

    proptest! {
        #[test]
        fn every_number_gives_a_code_of_its_own_that_parses(a in 0..CODES, b in 0..CODES) {
            let (one, two) = (Code::from_number(a), Code::from_number(b));
            prop_assert_eq!(one == two, a == b);
            prop_assert_eq!(one.as_str().len(), LENGTH);
            prop_assert_eq!(base62::decode(one.as_str()).ok(), Some(u128::from(a)));
            prop_assert_eq!(Code::parse(one.as_str().to_owned()), Some(one));
        }

        #[test]
        fn what_parses_is_short_and_plain(text in "\\PC{0,40}") {
            if let Some(code) = Code::parse(text) {
                prop_assert!((3..=32).contains(&code.as_str().len()));
                prop_assert!(code.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)));
            }
        }
    }

    #[test]
    fn letters_digits_underscores_and_hyphens_make_an_alias() {
        for alias in ["abc", "A-b_9", "---", "Links", &"x".repeat(32)] {
            assert!(Code::alias(alias.to_owned()).is_ok(), "{alias}");
        }
        for wrong in
            ["", "ab", &"x".repeat(33), "a/b", "..", "a.b", "a b", "a%2Fb", "äöü", "ab\n", "links"]
        {
            assert!(Code::alias(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn random_codes_differ() {
        let codes: std::collections::HashSet<_> =
            (0..1_000).map(|_| random_code().unwrap()).collect();
        assert_eq!(codes.len(), 1_000);
    }
}
