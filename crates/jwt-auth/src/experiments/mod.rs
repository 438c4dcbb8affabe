//! Which claims does this answer make, and what could refute each?

pub mod enumeration;
pub mod fixture;
mod forger;
pub mod forgeries;
pub mod hostile;
pub mod key_rotation;
pub mod password_cost;
pub mod refresh_reuse;
pub mod stateless;
pub mod verify;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        stateless::experiment(),
        forgeries::experiment(),
        refresh_reuse::experiment(),
        key_rotation::experiment(),
        enumeration::experiment(),
        password_cost::experiment(),
        verify::experiment(),
    ]
}
