//! Which claims does this answer make, and what could refute each?

pub mod compare;
mod schema;
mod wire;
pub mod chatty;
pub mod conditional;
pub mod contract;
pub mod cost;
pub mod evolution;
pub mod fixture;
pub mod hypermedia;
pub mod lost_update;
pub mod paging;
pub mod safe;
pub mod stateless;
pub mod twice;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        twice::experiment(),
        safe::experiment(),
        stateless::experiment(),
        lost_update::experiment(),
        conditional::experiment(),
        paging::experiment(),
        hypermedia::experiment(),
        contract::experiment(),
        evolution::experiment(),
        chatty::experiment(),
        cost::experiment(),
    ]
}
