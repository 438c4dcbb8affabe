//! `cargo run`: the book, with its experiments live, served on loopback.
//!
//! In reading order: [`questions`] are the eighteen; [`chapter`] puts the very code into an answer's
//! text; [`book`] makes pages of it all; [`checks`] finds what is wrong with them; [`render`] and [`live`]
//! show experiments and their results; [`runs`] runs them; [`measure`] runs them all and keeps what came of
//! it; [`server`] serves all of that, and [`site`] writes it down.

pub mod questions;
pub mod chapter;
pub mod book;
pub mod checks;
pub mod render;
pub mod live;
pub mod runs;
pub mod measure;
pub mod server;
pub mod site;

/// Every answer there is. To add one is to add its crate and a line here.
pub fn answers() -> Vec<lab::Answer> {
    vec![
        url_shortener::answer(),
        cache_aside::answer(),
        rate_limiter::answer(),
        transaction_demo::answer(),
        jwt_auth::answer(),
        notification_worker::answer(),
        saga_orchestrator::answer(),
    ]
}
