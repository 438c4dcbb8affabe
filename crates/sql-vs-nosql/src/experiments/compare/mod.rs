//! Other ways to do the same, to compare.

pub mod grain;
pub mod lookups;
pub mod naive;
