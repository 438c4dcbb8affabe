//! `cargo run`: the book, with its experiments live, served on loopback.
//!
//! In reading order: [`questions`] lists the eighteen questions; [`chapter`] puts the code into an answer's text, and
//! [`fold`] folds what a reader says first; the [`catalogue`] names everything; [`diagram`] draws its diagrams, and
//! [`flowchart`] lays out flowcharts; [`element`] names the elements of our own; and [`checks`] finds what is wrong with
//! the text and its links. [`render`] shows a report; [`measure`] runs all
//! experiments on a [`machine`] and keeps a [`record`], which the page [`measured`] shows and the [`numbers`] in the
//! chapters quote; [`result`] shows our result and the reader's, and [`live`] puts them on the pages, depending on the
//! [`mode`]; a [`prediction`] comes before a run. A [`reader`] has progress: [`state`] is how far they are with a
//! question, and [`plans`] and [`cards`] make the first page of it. [`speech`] shows what an interviewer says, on the
//! [`interview_page`], the [`quiz_page`] and the [`stories_page`]; [`forms`] takes what the reader sends. [`book`] makes
//! the pages, and [`shelf`] makes them again when their sources change.
//! [`program`] builds an answer, [`group`] runs it and ends it with everything that it started, [`turn`] lets one
//! experiment run at a time, [`told`] holds the messages to a page, and [`runs`] runs an experiment for a page.
//! [`server`] serves all this, [`problem`] writes errors, [`serving`] is `cargo run`, [`site`] writes the pages
//! into a folder, [`example`] runs an answer in another language, and [`languages`] compares their speed.

pub mod questions;
pub mod chapter;
pub mod fold;
pub mod flowchart;
pub mod diagram;
pub mod element;
pub mod checks;
pub mod mode;
pub mod prediction;
pub mod render;
pub mod machine;
pub mod record;
pub mod numbers;
pub mod catalogue;
pub mod measured;
pub mod example;
pub mod languages;
pub mod measure;
pub mod result;
pub mod live;
pub mod editor;
pub mod reader;
pub mod state;
pub mod plans;
pub mod cards;
pub mod speech;
pub mod interview_page;
pub mod quiz_page;
pub mod stories_page;
pub mod forms;
pub mod book;
pub mod shelf;
pub mod group;
pub mod program;
pub mod problem;
pub mod turn;
pub mod told;
pub mod runs;
pub mod server;
pub mod serving;
pub mod site;

// `answers()`, which the build script makes from the list in `Cargo.toml`.
include!(concat!(env!("OUT_DIR"), "/answers.rs"));
