//! Which claims does this answer make?

mod restart;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<lab::Experiment> {
    vec![restart::experiment()]
}
