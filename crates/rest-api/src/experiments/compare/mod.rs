//! What one could have written instead. [`graphql`] is served beside the answer; the others are for comparison, and for
//! nothing else.

pub mod graphql;
pub mod moved;
pub mod sessions;
pub mod strong;
