//! Which claims does this answer make?

pub mod fixture;
mod browser;
mod tap;
mod visit;

mod api_redirect;
mod cost;
mod eavesdrop;
mod first_request;
mod handshake;
mod impersonate;
mod multiplexing;
mod old_versions;
mod rotation;
mod secrets_in_time;
mod slow_handshakes;
mod tamper;

/// Every experiment, in the order of the chapter.
pub fn all() -> Vec<lab::Experiment> {
    vec![
        eavesdrop::experiment(),
        tamper::experiment(),
        impersonate::experiment(),
        first_request::experiment(),
        api_redirect::experiment(),
        old_versions::experiment(),
        secrets_in_time::experiment(),
        handshake::experiment(),
        cost::experiment(),
        rotation::experiment(),
        multiplexing::experiment(),
        slow_handshakes::experiment(),
    ]
}
