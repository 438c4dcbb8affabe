//! The table of calls.

use conform::{
    case::{Outcome, Suite},
    cases,
    http::lives_and_is_ready,
    target::Target,
};

cases! {
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// All of them, in the order of the table.
pub fn suite() -> Suite {
    Suite { calls: include_str!("calls.md"), cases: cases() }
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
