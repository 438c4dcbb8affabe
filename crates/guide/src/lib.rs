//! `cargo run`: the book, with its experiments live, served on loopback.
//!
//! In reading order: [`questions`] are the eighteen; [`chapter`] puts the very code into an answer's text, which
//! may hold an [`element`] of our own; [`checks`] finds what is wrong with the text and its links; [`render`] and
//! [`live`] show experiments and their results; [`measure`] runs all of them on a [`machine`] and keeps a [`record`],
//! which the page [`measured`] shows and the [`numbers`] in the chapters quote; [`book`] makes pages of all this; [`runs`] runs one experiment for a page; [`server`] serves the pages, [`problem`] says what
//! the server cannot do, and [`site`] writes the pages down.

pub mod questions;
pub mod chapter;
pub mod element;
pub mod checks;
pub mod render;
pub mod live;
pub mod machine;
pub mod record;
pub mod numbers;
pub mod measured;
pub mod measure;
pub mod book;
pub mod problem;
pub mod runs;
pub mod server;
pub mod site;

// `answers()`, which the build script makes of the list in `Cargo.toml`.
include!(concat!(env!("OUT_DIR"), "/answers.rs"));
