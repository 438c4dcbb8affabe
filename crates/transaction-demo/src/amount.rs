//! How is money counted? In whole cents, in a type that can hold no other thing.

use serde::Serialize;

/// An amount that can be moved: 1 cent at least.
///
/// Not a float, which has no 0.10. Not a decimal: cents are exact, and one column type in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AmountCents(i64);

// ANCHOR: parse_amount
impl AmountCents {
    /// 2⁵³ − 1: the largest that every reader of JSON reads exactly. It is the limit of a balance too.
    pub const MAX: i64 = 9_007_199_254_740_991;

    /// Parses what somebody wants to move. The error says what is wrong, for the person who sent it.
    pub fn parse(cents: i64) -> Result<Self, &'static str> {
        if (1..=Self::MAX).contains(&cents) {
            Ok(Self(cents))
        } else {
            Err("must be from 1 to 9007199254740991, in whole cents")
        }
    }

    /// As a number. It is positive, so its negative exists.
    pub fn get(self) -> i64 {
        self.0
    }
}
// ANCHOR_END: parse_amount

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_positive_and_exact_in_json() {
        for cents in [1, 2, 100, 1 << 52, AmountCents::MAX] {
            assert_eq!(AmountCents::parse(cents).map(AmountCents::get), Ok(cents));
        }
        for cents in [i64::MIN, -1, 0, 1 << 53, i64::MAX] {
            assert!(AmountCents::parse(cents).is_err(), "{cents}");
        }
    }
}
