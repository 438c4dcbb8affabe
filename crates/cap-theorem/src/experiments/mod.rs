//! Which claims does this answer make, and what could refute each?

pub mod ap;
pub mod async_failover;
pub mod checker;
pub mod clocks;
pub mod cost;
pub mod cp;
pub mod crdt;
pub mod fixture;
pub mod generate;
pub mod no_partition;
pub mod per_operation;
pub mod pick_two;
pub mod published;
pub mod quorum_is_not_enough;
pub mod recording;
pub mod split_brain;
pub mod stale_leader;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        checker::experiment(),
        cp::experiment(),
        ap::experiment(),
        crdt::experiment(),
        per_operation::experiment(),
        pick_two::experiment(),
        no_partition::experiment(),
        quorum_is_not_enough::experiment(),
        async_failover::experiment(),
        split_brain::experiment(),
        stale_leader::experiment(),
        clocks::experiment(),
        cost::experiment(),
    ]
}
