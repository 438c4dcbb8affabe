//! What do a served answer and a running experiment know about their answer? Its name, its servers and its schema.

use sqlx::migrate::Migrator;

use crate::stack::Service;

/// The parts of an [`Answer`](crate::Answer) that its `serve` function and its experiments may use.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The answer's name.
    pub name: &'static str,
    /// The servers that it cannot run without.
    pub needs: &'static [Service],
    /// The schema, if it has one.
    pub migrations: Option<&'static Migrator>,
}
