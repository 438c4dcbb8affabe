//! Which claims does this answer make, and what could refute each?

pub mod compare;
pub mod eventual;
pub mod fixture;
pub mod joins;
pub mod later_question;
pub mod money;
pub mod schema;
pub mod search;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        schema::experiment(),
        money::experiment(),
        joins::experiment(),
        search::experiment(),
        eventual::experiment(),
        later_question::experiment(),
    ]
}
