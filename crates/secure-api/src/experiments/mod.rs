//! Which claims does this answer make, and what could refute each? Each is an attack, and only on a server of the reader's.

pub mod compare;
mod receiver;
pub mod authentication;
pub mod business_flow;
pub mod consumption;
pub mod cors;
pub mod cost;
pub mod fixture;
pub mod function_level;
pub mod injection;
pub mod inventory;
pub mod logs;
pub mod misconfiguration;
pub mod object_level;
pub mod properties;
pub mod ssrf;
pub mod upstream;

use lab::Experiment;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<Experiment> {
    vec![
        object_level::experiment(),
        authentication::experiment(),
        properties::experiment(),
        consumption::experiment(),
        function_level::experiment(),
        business_flow::experiment(),
        ssrf::experiment(),
        misconfiguration::experiment(),
        inventory::experiment(),
        upstream::experiment(),
        injection::experiment(),
        cors::experiment(),
        logs::experiment(),
        cost::experiment(),
    ]
}
