//! What do the tests of this folder share with those of the answers? The harness.

pub use conform::target::within;
pub use lab::harness::{Outcome, eventually, trial};
pub(crate) use lab::tests;
