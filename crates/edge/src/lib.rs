//! What do all HTTP services need at their edge, whatever they do behind it?
//!
//! Errors that a client can read, bodies that are what they should be, a time-out and an answer for what goes
//! wrong unforeseen, and a database that does not answer or not in time. It knows no answer and no `lab`: a
//! folder of an answer and this one make a project of their own.
//!
//! In reading order: what a client sees of an error ([`problem`]), how a body is read ([`json`], [`strict`])
//! and what its text may be ([`text`], and `email` with the feature of that name), what each request gets around it
//! ([`frame`]), what stands in its path ([`path`]), what a header says and who may call ([`header`]), who is asking ([`client_address`]), and how long we wait
//! for PostgreSQL ([`database`], with the feature `postgres`). With the feature `connection`, also how HTTP is spoken over
//! TLS.

pub mod problem;
pub mod json;
pub mod strict;
pub mod text;
#[cfg(feature = "email")]
pub mod email;
pub mod frame;
pub mod path;
pub mod header;
pub mod client_address;
#[cfg(feature = "connection")]
pub mod connection;
#[cfg(feature = "postgres")]
pub mod database;

pub use json::Json;
pub use problem::{FieldError, Mistakes, Problem};
