//! Which claims does this answer make, and what could refute each?

pub mod advice;
pub mod building;
pub mod covering;
pub mod fixture;
pub mod ignored;
pub mod lookup;
pub mod order;
pub mod partial_and_expression;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        lookup::experiment(),
        ignored::experiment(),
        order::experiment(),
        covering::experiment(),
        partial_and_expression::experiment(),
        building::experiment(),
        advice::experiment(),
    ]
}
