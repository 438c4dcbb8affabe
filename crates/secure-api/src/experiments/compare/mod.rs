//! What one could have configured instead. It is for comparison, and for nothing else.

pub mod cookies;
