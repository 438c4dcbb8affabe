//! The saga's table of calls: that of the orders, and those of its three participants.

mod bad_input;
pub mod client;
mod crowds;
mod orders;
mod participants;

use conform::case::Suite;

/// Every case.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [orders::cases(), crowds::cases(), participants::cases(), bad_input::cases()]
            .concat(),
    }
}
