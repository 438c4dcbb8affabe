//! The saga's table of calls: that of the orders, and those of its three participants.

mod bad_input;
pub mod client;
mod orders;
mod participants;

use conform::case::Suite;

/// What the program has to be, and to be told.
const NEEDS: &str = "\
    The program serves the orders and their three participants at one address: `/orders`, `/inventory/…`, `/payment/…` and \
    `/shipping/…`. It charges `pm_card_visa` and declines `pm_card_chargeDeclined`, sends nothing to the country \
    `XX`, and comes to an end with an order within a minute, also after it was killed: a lease may not be longer. Each case has skus, keys and orders of its own.";

/// Every case.
pub fn suite() -> Suite {
    Suite {
        needs: NEEDS,
        cases: [orders::cases(), participants::cases(), bad_input::cases()].concat(),
    }
}
