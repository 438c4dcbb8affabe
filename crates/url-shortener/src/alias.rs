//! Which codes may clients choose for themselves?

use crate::code::Code;

/// Paths that are ours, and some that may become so: a link made today must still work then.
const RESERVED: [&str; 8] =
    ["about", "admin", "api", "healthz", "links", "metrics", "readyz", "static"];

/// A code chosen by a client. Aliases and generated codes share one namespace: whichever is first in
/// the table owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias(Code);

impl Alias {
    /// Parses what a client sent. The error says what is wrong.
    pub fn parse(input: &str) -> Result<Self, &'static str> {
        if RESERVED.contains(&input) {
            return Err("is reserved");
        }
        Code::parse(input.to_owned())
            .map(Self)
            .ok_or("must be 3 to 32 characters, of letters, digits, '_' and '-'")
    }

    /// The alias as the code that it is.
    pub fn code(&self) -> &Code {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_underscores_and_hyphens_make_an_alias() {
        for input in ["abc", "A-b_9", "---", "Links", &"x".repeat(32)] {
            assert!(Alias::parse(input).is_ok(), "{input}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for input in
            ["", "ab", &"x".repeat(33), "a/b", "..", "a.b", "a b", "a%2Fb", "äöü", "ab\n", "links"]
        {
            assert!(Alias::parse(input).is_err(), "{input:?}");
        }
    }
}
