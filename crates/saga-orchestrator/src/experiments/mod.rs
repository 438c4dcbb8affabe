//! Which claims does this answer make, and what could refute each?

mod books;
pub mod choreography;
pub mod compare;
mod crash;
pub mod crash_everywhere;
pub mod fixture;
pub mod order;
pub mod overselling;
pub mod participants_fail;
pub mod split_brain;
pub mod stuck;
pub mod throughput;
pub mod two_phase_commit;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        order::experiment(),
        crash_everywhere::experiment(),
        participants_fail::experiment(),
        split_brain::experiment(),
        stuck::experiment(),
        overselling::experiment(),
        two_phase_commit::experiment(),
        choreography::experiment(),
        throughput::experiment(),
    ]
}
