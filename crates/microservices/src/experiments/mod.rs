//! Which claims does this answer make, and what could refute each?

pub mod compare;
mod load;
pub mod availability;
pub mod blast_radius;
pub mod call_cost;
pub mod consistency;
pub mod deploy;
pub mod distributed_monolith;
pub mod fixture;
pub mod join;
pub mod partial_failure;
pub mod polyglot;
pub mod retry_storm;
pub mod scale_one;
pub mod strangler;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        call_cost::experiment(),
        availability::experiment(),
        partial_failure::experiment(),
        retry_storm::experiment(),
        consistency::experiment(),
        join::experiment(),
        blast_radius::experiment(),
        deploy::experiment(),
        strangler::experiment(),
        scale_one::experiment(),
        distributed_monolith::experiment(),
        polyglot::experiment(),
    ]
}
