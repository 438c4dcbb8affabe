//! Which claims does this answer make, and what could refute each?

pub mod accuracy;
pub mod boundary_burst;
pub mod clock;
pub mod cost;
pub mod distributed;
pub mod fixture;
mod naive;
pub mod naive_redis;
pub mod spoofing;
pub mod store_away;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        boundary_burst::experiment(),
        accuracy::experiment(),
        distributed::experiment(),
        naive_redis::experiment(),
        store_away::experiment(),
        clock::experiment(),
        spoofing::experiment(),
        cost::experiment(),
    ]
}
