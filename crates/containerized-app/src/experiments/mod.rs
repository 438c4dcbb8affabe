//! Which claims does this answer make?

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<lab::Experiment> {
    vec![]
}
