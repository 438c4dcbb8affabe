//! Which claims does this answer make, and what could refute each?

mod clients;
mod echo;
pub mod adaptive;
pub mod blocking;
pub mod cancelled;
pub mod cost;
pub mod event_loop;
pub mod fixture;
pub mod noisy_neighbour;
pub mod overload;
pub mod pgbouncer;
pub mod pool_size;
pub mod queue;
pub mod retries;
pub mod sale_day;
pub mod single_flight;
pub mod threads;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        blocking::experiment(),
        event_loop::experiment(),
        threads::experiment(),
        pool_size::experiment(),
        pgbouncer::experiment(),
        overload::experiment(),
        queue::experiment(),
        retries::experiment(),
        adaptive::experiment(),
        cancelled::experiment(),
        single_flight::experiment(),
        noisy_neighbour::experiment(),
        sale_day::experiment(),
        cost::experiment(),
    ]
}
