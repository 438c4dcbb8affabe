//! What do all HTTP services need at their edge, whatever they do behind it?
//!
//! Errors that a client can read, bodies that are checked, a time-out, an answer even after a panic, and calls to a
//! database that may be slow or down. This crate knows no answer and not `lab`: you can copy it together with the
//! folder of one answer and have a project of your own.
//!
//! In reading order: what a client sees of an error ([`problem`]), how a body is read ([`json`], [`strict`]) and what
//! its text may be ([`text`], and `email` with the feature of that name), what surrounds each call ([`frame`]), what
//! stands in its path ([`path`]), how a header is read and who may call ([`header`]), which trace a call belongs to ([`trace`]), how a secret comes in ([`secret`], and
//! `password` with the feature of that name), which address is the client's ([`client_address`]), how a stranger's name is
//! looked up ([`lookup`]), and how long we wait for PostgreSQL ([`database`], with the feature `postgres`). With the feature
//! `connection`, also how HTTP is served over a TLS stream.

pub mod problem;
pub mod json;
pub mod strict;
pub mod text;
#[cfg(feature = "email")]
pub mod email;
pub mod frame;
pub mod path;
pub mod header;
pub mod trace;
pub mod secret;
#[cfg(feature = "password")]
pub mod password;
pub mod client_address;
pub mod lookup;
#[cfg(feature = "connection")]
pub mod connection;
#[cfg(feature = "postgres")]
pub mod database;

pub use json::Json;
pub use problem::{FieldError, Mistakes, Problem};
