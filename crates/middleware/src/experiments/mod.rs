//! Which claims does this answer make, and what could refute each?

pub mod compare;
mod elsewhere;
pub mod context;
pub mod cost;
pub mod early_body;
pub mod errors;
pub mod fixture;
pub mod forgotten_next;
pub mod onion;
pub mod order;
pub mod panic;
pub mod same_elsewhere;
pub mod timeout;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        onion::experiment(),
        order::experiment(),
        panic::experiment(),
        timeout::experiment(),
        forgotten_next::experiment(),
        early_body::experiment(),
        errors::experiment(),
        context::experiment(),
        cost::experiment(),
        same_elsewhere::experiment(),
    ]
}
