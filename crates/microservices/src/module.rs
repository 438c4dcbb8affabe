//! Which modules does the shop have, and what does each of them own?
//!
//! Invariant: a module touches only the tables of its own schema. So it can have a database of its own tomorrow.

use std::time::Duration;

use edge::database::Limits;
use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;
use uuid::Uuid;

use crate::error::Error;

/// The schemas of all modules. The monolith has them in one database.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// A database of a module, or of all of them.
pub type Database = edge::database::Database<Error>;

/// A part that can run in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Module {
    /// What is sold
    Catalogue,
    /// What it costs now; it keeps nothing
    Pricing,
    /// What was ordered
    Orders,
    /// What was paid
    Payments,
    /// What others bought too
    Recommendations,
    /// The table of calls, for clients
    Gateway,
}

impl Module {
    /// Those that answer the gateway's calls.
    pub const SERVICES: [Self; 5] =
        [Self::Catalogue, Self::Pricing, Self::Orders, Self::Payments, Self::Recommendations];

    /// As on the command line, and as its schema.
    pub fn name(self) -> &'static str {
        let names = ["catalogue", "pricing", "orders", "payments", "recommendations", "gateway"];
        names[self as usize]
    }

    /// Which others it asks.
    pub fn asks(self) -> &'static [Self] {
        match self {
            Self::Gateway => &Self::SERVICES,
            Self::Orders => &[Self::Catalogue, Self::Pricing, Self::Payments],
            _ => &[],
        }
    }

    /// Those that have something to tell.
    pub const TELLING: [Self; 3] = [Self::Catalogue, Self::Orders, Self::Payments];

    /// Its own schema alone, for a database of its own. Pricing and the gateway keep nothing.
    pub fn migrations(self) -> Option<Migrator> {
        let own = MIGRATIONS.iter().filter(|it| it.description == self.name());
        let own: Vec<_> = own.cloned().collect();
        (!own.is_empty()).then(|| Migrator::with_migrations(own))
    }
}

// ANCHOR: event
/// What a module tells the others after it has happened. Who listens is not its concern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "of", rename_all = "snake_case")]
pub enum Event {
    /// This product is new, or is called something else: this.
    ProductChanged(i64, String),
    /// This payment was made.
    Paid(Uuid),
    /// This order was placed, by this customer, for this product.
    OrderPlaced(Uuid, i64, i64),
}

/// An event with its number in the outbox that it comes from. A later one of the same thing has a greater number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// From 1.
    pub number: i64,
    /// What happened.
    pub event: Event,
}
// ANCHOR_END: event

/// Connects when it is first asked something, so it need not be there yet. The error is a malformed URL.
pub fn connect(url: &str) -> sqlx::Result<Database> {
    let timeout = Duration::from_secs(2);
    Database::new(url, Limits { connections: 8, timeout, pause: Duration::from_millis(500) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_that_keeps_something_has_one_schema() {
        for module in Module::SERVICES {
            let own = module.migrations().map_or(0, |it| it.iter().count());
            assert_eq!(own, usize::from(module != Module::Pricing), "{module:?}");
        }
        assert_eq!(MIGRATIONS.iter().count(), 4);
    }
}
