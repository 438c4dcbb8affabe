//! Is this refresh token the user's, or a thief's copy?
//!
//! Nobody can tell which of two uses is the thief's. But there are two, and that can be seen: each refresh begins a new
//! generation, and a token of an older one comes from somebody who has missed a refresh.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// 256 random bits. Whoever has them is logged in, so they are shown only to their owner: there is no `Debug`.
#[derive(PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

impl RefreshToken {
    /// A new one.
    pub fn generate() -> Result<Self> {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).map_err(Error::internal)?;
        Ok(Self(bits))
    }

    /// Parses what a client sent: 43 characters of base64url. Nothing else can be one of ours.
    pub fn parse(input: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(input).ok()?.try_into().ok()?))
    }

    /// What we keep. One pass of SHA-256 is enough here: 256 random bits cannot be guessed, however fast one guesses.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// What its owner gets.
    pub fn reveal(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// A token that was presented, and the state of its session. Read while the session's row is locked.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Presented {
    /// The token's generation.
    pub generation: i32,
    /// The session's.
    pub current: i32,
    /// How many seconds ago the session came to its generation.
    pub advanced: f64,
    /// Whether the session was revoked.
    pub revoked: bool,
    /// Whether the session was not refreshed for too long, or is too old.
    pub expired: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first use of this generation: the session comes to the next.
    Advance,
    /// A second tab, or a client that has not heard our answer: it gets a token of the generation that is there.
    Join,
    /// Used before. Somebody has a copy: the session ends.
    Reuse,
    /// The session was revoked already.
    Revoked,
    /// The session is over.
    Expired,
}

impl Presented {
    // ANCHOR: verdict
    /// Within the grace, the token before the current ones is as good as they are. All tokens of one generation count
    /// as used when the first of them is: a thief who slips into the grace is found out at the next refresh.
    pub fn verdict(&self, grace: Duration) -> Verdict {
        if self.revoked {
            Verdict::Revoked
        } else if self.expired {
            Verdict::Expired
        } else if self.generation == self.current {
            Verdict::Advance
        } else if self.generation == self.current - 1 && self.advanced <= grace.as_secs_f64() {
            Verdict::Join
        } else {
            Verdict::Reuse
        }
    }
    // ANCHOR_END: verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(generation: i32, current: i32, advanced: f64, revoked: bool) -> Verdict {
        let presented = Presented { generation, current, advanced, revoked, expired: false };
        let expired = Presented { expired: true, ..presented }.verdict(Duration::from_secs(10));
        assert_eq!(expired, if revoked { Verdict::Revoked } else { Verdict::Expired });
        presented.verdict(Duration::from_secs(10))
    }

    #[test]
    fn a_fresh_token_advances_the_session_however_old_it_is() {
        assert_eq!(verdict(0, 0, 0.0, false), Verdict::Advance);
        assert_eq!(verdict(7, 7, 86_400.0, false), Verdict::Advance);
    }

    #[test]
    fn the_token_before_it_joins_within_the_grace_and_ends_the_session_after_it() {
        assert_eq!(verdict(6, 7, 10.0, false), Verdict::Join);
        assert_eq!(verdict(6, 7, 11.0, false), Verdict::Reuse);
    }

    #[test]
    fn an_older_token_has_no_grace() {
        assert_eq!(verdict(5, 7, 0.0, false), Verdict::Reuse);
    }

    #[test]
    fn what_has_ended_stays_so() {
        for generation in [5, 6, 7] {
            assert_eq!(verdict(generation, 7, 0.0, true), Verdict::Revoked);
        }
    }

    #[test]
    fn a_token_reads_as_it_was_written_and_nothing_else_is_one() {
        let token = RefreshToken::generate().unwrap();
        assert!(RefreshToken::parse(&token.reveal()).is_some_and(|read| read == token));
        assert_eq!(token.reveal().len(), 43);
        let padded = format!("{}=", token.reveal());
        for bad in ["", "abc", &padded, &token.reveal()[1..], &"ä".repeat(43)] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad}");
        }
    }
}
