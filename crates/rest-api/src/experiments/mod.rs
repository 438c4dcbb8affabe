//! Which claims does this answer make, and what could refute each?

pub mod fixture;
pub mod lost_update;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![lost_update::experiment()]
}
