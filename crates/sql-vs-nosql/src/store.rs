//! Which store is it? One port for all of them: the service asks the same, and cannot tell who answers.

use crate::entity::{Fields, Kind};
use crate::error::Result;
use crate::key_value::KeyValue;
use crate::order::{Order, Request};
use crate::postgres::Postgres;
use crate::query::{By, Read, Revenue, Search, Session};
use crate::{documents, tables};

/// The three ways to keep a shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// PostgreSQL with a table for each kind of thing
    Tables,
    /// PostgreSQL with one document for each thing
    Documents,
    /// Redis with hashes, lists and sets
    KeyValue,
}

/// A running store. An enum and not a trait: all of them are known. Tables and documents are one program with two sets of
/// statements.
#[derive(Clone, Debug)]
pub enum Store {
    /// Tables, or documents.
    Postgres(Postgres),
    /// Keys and values.
    KeyValue(KeyValue),
}

impl Store {
    /// A store of this kind. It connects when it is first asked something. The errors are malformed URLs.
    pub fn new(
        model: Model,
        (database, replica): (&str, Option<&str>),
        (redis, prefix): (&str, &str),
    ) -> anyhow::Result<Self> {
        Ok(match model {
            Model::Tables => Self::Postgres(Postgres::new(&tables::SQL, database, replica)?),
            Model::Documents => Self::Postgres(Postgres::new(&documents::SQL, database, replica)?),
            Model::KeyValue => Self::KeyValue(KeyValue::new(redis, prefix)?),
        })
    }

    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Postgres(it) if it.sql.any_shape => "documents",
            Self::Postgres(_) => "tables",
            Self::KeyValue(_) => "key-value",
        }
    }
}

/// Hands each call to whichever store it is.
macro_rules! port {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl Store {
            $($(#[$doc])* pub async fn $name(&self, $($argument: $type),*) -> Result<$answer> {
                match self {
                    Self::Postgres(it) => it.$name($($argument),*).await,
                    Self::KeyValue(it) => it.$name($($argument),*).await,
                }
            })*
        }
    };
}

// ANCHOR: port
port! {
    /// A customer or a product, with its amount. `after` is where in the log the reader's last write is.
    get(kind: Kind, id: &str, after: Option<&str>) -> Read;
    /// Makes of what is there what `decide` says; and whether nothing was there. Nobody writes in between.
    replace(kind: Kind, id: &str, decide: impl Fn(Option<Fields>) -> Result<Fields>) -> (Fields, bool);
    /// Takes a customer away who has no orders.
    delete(customer: &str) -> ();
    /// Adds to a balance or a stock; what it is then.
    add(kind: Kind, id: &str, many: i64) -> i64;
    /// The hundred cheapest products that match, with their ids.
    search(search: &Search) -> Vec<(String, Fields)>;
    /// Takes stock and money, and keeps the order; or does nothing of this.
    place(request: &Request) -> Order;
    /// The newest hundred orders of a customer, with their lines.
    orders_of(customer: &str) -> Vec<Order>;
    /// What was earned.
    revenue(by: By) -> Vec<Revenue>;
    /// Keeps a session for so many seconds.
    put_session(id: &str, session: &Session) -> ();
    /// The session, if it has not expired.
    session(id: &str) -> Session;
    /// Where the log is now, if there is a replica that may be behind it.
    position() -> Option<String>;
    /// Whether the store answers.
    ping() -> ();
}
// ANCHOR_END: port
