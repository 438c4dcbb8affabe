//! Which claims does this answer make, and what could refute each?

pub mod compare;
pub mod context;
pub mod cost;
pub mod errors;
pub mod fixture;
pub mod onion;
pub mod order;
pub mod panic;
pub mod timeout;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        onion::experiment(),
        order::experiment(),
        panic::experiment(),
        timeout::experiment(),
        errors::experiment(),
        context::experiment(),
        cost::experiment(),
    ]
}
