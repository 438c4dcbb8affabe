//! Designs that were not chosen, to be compared with ours.

pub mod permutation;
