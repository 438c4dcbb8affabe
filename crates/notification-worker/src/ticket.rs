//! How does a browser prove who it is, where it cannot send a header? With a ticket in the URL.
//!
//! URLs end up in logs. This one is worth nothing there: it serves once, for seconds, for one user.

use std::fmt;

use crate::error::Error;

/// 256 random bits, in hexadecimal.
#[derive(Clone, Debug)]
pub struct Ticket(String);

// ANCHOR: ticket
impl Ticket {
    /// A new one, from the system's source of randomness.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// What somebody sent. Nothing else may get into a key of Redis.
    pub fn parse(text: String) -> Option<Self> {
        let good = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then_some(Self(text))
    }
}
// ANCHOR_END: ticket

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_differ_and_nothing_else_is_one() {
        let (one, two) = (Ticket::random().unwrap(), Ticket::random().unwrap());
        assert_ne!(one.to_string(), two.to_string());
        assert!(Ticket::parse(one.to_string()).is_some());
        for bad in ["", "abc", &format!("{one}0"), &one.to_string().replace(|_| true, ":")] {
            assert!(Ticket::parse(bad.to_owned()).is_none(), "{bad}");
        }
    }
}
