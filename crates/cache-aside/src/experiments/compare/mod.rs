//! What is our cache compared with?

pub mod textbook;
pub mod write_policies;
