//! How long do we wait for a database, and where are they?

use std::time::Duration;

use edge::database::Limits;

use crate::error::Error;

/// For one call. Waiting for a hot row counts too.
pub const TIMEOUT: Duration = Duration::from_secs(3);
const LIMITS: Limits = Limits {
    connections: 16,
    timeout: TIMEOUT,
    // We send one statement of a transaction right after the other.
    pause: Duration::from_millis(500),
};

/// One of the databases.
pub type Database = edge::database::Database<Error>;

/// Connects when it is first asked something, so it need not be there yet. The error is a malformed URL.
pub fn connect(url: &str) -> Result<Database, sqlx::Error> {
    Database::new(url, LIMITS)
}

/// The URLs of the databases, migrated. A service that does not run here has none.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    /// The orchestrator's.
    pub orders: Option<String>,
    /// The inventory's.
    pub inventory: Option<String>,
    /// The payment service's.
    pub payment: Option<String>,
    /// The shipping service's.
    pub shipping: Option<String>,
}
