//! What is not the answer, and compared with it.

pub mod noop;
pub mod transfers;
pub mod usual;
