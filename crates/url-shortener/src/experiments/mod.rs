//! Which claims does this answer make, and what could refute each?

pub mod collisions;
pub mod compare;
pub mod crash;
pub mod creates;
pub mod database_away;
pub mod expiry;
pub mod fixture;
pub mod race;
pub mod redirects;
pub mod sharding;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        collisions::experiment(),
        race::experiment(),
        expiry::experiment(),
        sharding::experiment(),
        crash::experiment(),
        database_away::experiment(),
        redirects::experiment(),
        creates::experiment(),
    ]
}
