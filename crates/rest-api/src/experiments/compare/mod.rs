//! What one would have written instead: for comparison, and for nothing else.

pub mod sessions;
pub mod strong;
