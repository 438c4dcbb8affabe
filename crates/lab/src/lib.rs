//! What do all answers share? Everything that is not the answer to a question.
//!
//! In reading order: [`answer`] is what a crate declares. [`experiment`] tries a claim, [`recorder`] records what a run
//! saw, [`results`] keeps the report with the hash of the [`code`] that made it, [`needs`] is what an experiment needs
//! from the machine, [`sabotage`] is a mistake that a check must find, and [`report`] shows a report. [`stack`] finds
//! or starts the real servers. [`database`], [`keys`] and [`queues`] give each test a part of PostgreSQL, Redis and
//! RabbitMQ, `claim` deletes what a killed process left there, and [`group`] starts several servers that work as one.
//! `whiteboard` says which version of an answer is tried, `foreign_page` who may call the naive version, and
//! [`mistakes`] reads what that version gets wrong.
//! Experiments start and kill programs with [`child`], break the network with [`fault`], and measure with [`load`].
//! [`serve`] and [`cli`] run it all, and [`harness`] tests it all.

pub mod answer;
pub mod child;
mod claim;
pub mod cli;
pub mod code;
pub mod database;
mod environment;
mod erased;
mod executable;
pub mod experiment;
mod farewell;
pub mod fault;
mod foreign_page;
pub mod group;
pub mod harness;
pub mod keys;
pub mod load;
pub mod mistakes;
pub mod needs;
pub mod open_files;
pub mod port;
pub mod queues;
pub mod recorder;
pub mod report;
pub mod results;
pub mod sabotage;
mod connection;
pub mod serve;
mod skip;
pub mod stack;
mod subject;
mod whiteboard;

pub use answer::{Answer, NoOptions, Serve};
pub use cli::{run, take_over};
pub use experiment::{Experiment, Lab};
pub use needs::Need;
pub use recorder::{Report, Target};
pub use sabotage::Sabotage;
pub use serve::Serving;
pub use skip::{skip, why_skipped};
pub use stack::Service;
pub use subject::Subject;
