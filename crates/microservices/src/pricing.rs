//! What does it cost now? Rules, and nothing that is kept: so any number of instances can do it, in any language.

use serde::{Deserialize, Serialize};

use crate::{call::Call, error::Result, reach::calls};

/// What is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its price in the catalogue.
    pub cents: i64,
    /// How many of it.
    pub quantity: i64,
}

/// What it costs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// For all of them.
    pub cents: i64,
}

// ANCHOR: quote
/// Whoever buys three gets 5 % off, and whoever buys ten gets 10 %. Half a cent is the customer's.
pub fn quote(question: Question) -> Quote {
    let Question { cents, quantity } = question;
    let percent = match quantity {
        10.. => 90,
        3.. => 95,
        _ => 100,
    };
    Quote { cents: cents.saturating_mul(quantity).saturating_mul(percent) / 100 }
}
// ANCHOR_END: quote

/// The module itself.
#[derive(Clone, Copy, Debug)]
pub struct Pricing;

impl Pricing {
    /// See [`quote`].
    #[allow(clippy::unused_async, reason = "as the other modules do")]
    pub async fn quote(&self, _: &Call, question: Question) -> Result<Quote> {
        Ok(quote(question))
    }
}

calls! { Pricing as "pricing":
    quote(Question) -> Quote;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_cost_less_each_and_half_a_cent_is_the_customers() {
        for (cents, quantity, all) in
            [(1_000, 1, 1_000), (1_000, 3, 2_850), (1_000, 10, 9_000), (33, 3, 94), (0, 5, 0)]
        {
            assert_eq!(quote(Question { cents, quantity }), Quote { cents: all });
        }
    }

    #[test]
    fn a_sum_that_is_too_large_for_its_type_does_not_wrap() {
        let quote = quote(Question { cents: i64::MAX, quantity: 10 });
        assert!(quote.cents > 0, "{quote:?}");
    }
}
