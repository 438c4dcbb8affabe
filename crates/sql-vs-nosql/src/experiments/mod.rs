//! Which claims does this answer make, and what could refute each?

pub mod compare;
pub mod duplication;
pub mod durability;
pub mod eventual;
pub mod fixture;
pub mod joins;
pub mod later_question;
pub mod money;
pub mod scale;
pub mod schema;
pub mod search;
pub mod size;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        schema::experiment(),
        money::experiment(),
        durability::experiment(),
        joins::experiment(),
        duplication::experiment(),
        search::experiment(),
        later_question::experiment(),
        eventual::experiment(),
        scale::experiment(),
        size::experiment(),
    ]
}
