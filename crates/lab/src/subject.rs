//! What do a served answer and a running experiment know of the answer that they belong to? No more than this.

use sqlx::migrate::Migrator;

use crate::stack::Service;

/// An answer's name, servers and schema.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// The answer's name.
    pub name: &'static str,
    /// The servers that it cannot run without.
    pub needs: &'static [Service],
    /// The schema, if it has one.
    pub migrations: Option<&'static Migrator>,
}
