//! Which claims does this answer make, and what could refute each?

mod anomalies;
mod books;
mod paying;
mod pgbench;
mod random;
mod sessions;
mod steps;
mod watch;
pub mod atomicity;
pub mod cost;
pub mod deadlock;
pub mod durability;
pub mod failover;
pub mod fixture;
pub mod idempotency;
pub mod isolation;
pub mod lost_update;
pub mod write_skew;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        atomicity::experiment(),
        isolation::experiment(),
        lost_update::experiment(),
        write_skew::experiment(),
        deadlock::experiment(),
        durability::experiment(),
        failover::experiment(),
        idempotency::experiment(),
        cost::experiment(),
    ]
}
