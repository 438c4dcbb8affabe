//! `cargo run`: the book, with its experiments live, served on loopback.
//!
//! In reading order: [`questions`] are the eighteen; [`chapter`] puts the very code into an answer's
//! text; [`book`] makes pages of it all; [`checks`] finds what is wrong with them; [`render`] and [`live`]
//! show experiments and their results; [`runs`] runs them; [`server`] serves all of that, and [`site`]
//! writes it down.

pub mod questions;
pub mod chapter;
pub mod book;
pub mod checks;
pub mod render;
pub mod live;
pub mod runs;
pub mod server;
pub mod site;

/// Every answer there is. To add one is to add its crate and a line here.
pub fn answers() -> Vec<lab::Answer> {
    vec![url_shortener::answer(), saga_orchestrator::answer()]
}
