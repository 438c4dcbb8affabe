//! What every answer stands on, so that an answer holds nothing but its own question.
//!
//! In reading order: [`answer`] is what a crate declares, [`experiment`] and [`recorder`] are how a claim is tried and
//! what a run leaves, [`results`] keep it with the [`code`] that made it, [`needs`] is what it asks of the machine,
//! [`sabotage`] is what turns it red, [`report`] shows it. [`stack`] finds or starts the real
//! servers, [`database`] gives everyone a database of their own, [`keys`] a part of Redis and [`queues`] of
//! RabbitMQ, `claim` deletes what a killed process left there, and [`group`] is several servers that work as one;
//! `whiteboard` is which version of an answer is tried, and [`mistakes`] are what the naive one gets wrong; [`child`],
//! [`fault`] and [`load`] are what experiments break, measure and ask with; [`serve`] and [`cli`] run it all, and
//! [`harness`] tries it all.

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
