//! Which claims does this answer make?

pub mod fixture;
mod tap;
mod visit;

mod eavesdrop;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<lab::Experiment> {
    vec![eavesdrop::experiment()]
}
