//! Which claims does this answer make, and what could refute each?

pub mod advice;
pub mod building;
pub mod covering;
pub mod fixture;
pub mod foreign_keys;
pub mod ignored;
pub mod kinds;
pub mod lookup;
pub mod order;
pub mod partial_and_expression;
pub mod space;
pub mod unique;
pub mod write_cost;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        lookup::experiment(),
        ignored::experiment(),
        order::experiment(),
        covering::experiment(),
        partial_and_expression::experiment(),
        kinds::experiment(),
        write_cost::experiment(),
        space::experiment(),
        unique::experiment(),
        foreign_keys::experiment(),
        building::experiment(),
        advice::experiment(),
    ]
}
