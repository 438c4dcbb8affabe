//! Which claims does this answer make, and what could refute each?

pub mod alarm;
pub mod backoff;
pub mod broker_restart;
pub mod crash_worker;
pub mod fan_out;
pub mod fcm;
pub mod fixture;
pub mod node_lost;
pub mod ordering;
pub mod poison;
pub mod scale;
mod seen;
pub mod slow_reader;
pub mod throughput;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        crash_worker::experiment(),
        broker_restart::experiment(),
        node_lost::experiment(),
        alarm::experiment(),
        backoff::experiment(),
        ordering::experiment(),
        poison::experiment(),
        scale::experiment(),
        fan_out::experiment(),
        slow_reader::experiment(),
        throughput::experiment(),
    ]
}
