//! Which claims does this answer make, and what could refute each?

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![]
}
