//! How does a long URL become seven letters?

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Error;

/// How many codes of seven base62 characters there are: 62⁷, 3.5 trillion.
pub const CODES: u64 = 62_u64.pow(7);
const LENGTH: usize = 7;

/// How codes are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Codes {
    /// A checksum of the URL, as the textbook has it
    #[default]
    Crc32,
    /// A sequence, permuted: unique, and not guessable in order
    Sequence,
    /// Drawn by the operating system: not guessable at all
    Random,
}

/// A name of a link: seven characters that we made, or an alias that somebody chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, sqlx::Type)]
#[sqlx(transparent)]
pub struct Code(String);

impl Code {
    /// The shortest alias.
    pub const SHORTEST: usize = 3;
    /// The longest alias.
    pub const LONGEST: usize = 32;

    /// What could be the name of a link. Everything else is not found without asking a database.
    pub fn parse(text: String) -> Option<Self> {
        let fits = (Self::SHORTEST..=Self::LONGEST).contains(&text.len());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (fits && text.bytes().all(allowed)).then_some(Self(text))
    }

    /// The number in base62, filled up with zeros.
    pub fn from_number(number: u64) -> Self {
        debug_assert!(number < CODES, "{number} needs more than seven characters");
        Self(format!("{:0>LENGTH$}", base62::encode(number)))
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// ANCHOR: crc32_code
/// The textbook's code: a checksum of the URL. Salt 0 is the bare URL; the next salts are for when the
/// code is taken.
///
/// The modulo stands here because the textbook has it. It does nothing: 2³² < 62⁷.
pub fn crc32_code(url: &str, salt: u32) -> Code {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(url.as_bytes());
    if salt > 0 {
        // CRC32 is linear: URLs that collide go on colliding, whatever is appended to both. A salt finds
        // the loser another place. It does not part the two, and no salt could.
        checksum.update(&salt.to_be_bytes());
    }
    Code::from_number(u64::from(checksum.finalize()) % CODES)
}
// ANCHOR_END: crc32_code

/// A code that nobody can guess: uniform over all of them, from the operating system.
pub fn random_code() -> Result<Code, Error> {
    // The largest multiple of 62⁷ that fits: beyond it, some codes would be likelier than others.
    let end = u64::MAX - u64::MAX % CODES;
    loop {
        let number = getrandom::u64().map_err(Error::internal)?;
        if number < end {
            return Ok(Code::from_number(number % CODES));
        }
    }
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
        // Found by search; the same CRC32, like "plumless" and "buckeroo".
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
            prop_assert_eq!(Code::parse(one.to_string()), Some(one));
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
    fn random_codes_differ() {
        let codes: std::collections::HashSet<_> =
            (0..1_000).map(|_| random_code().unwrap()).collect();
        assert_eq!(codes.len(), 1_000);
    }
}
