//! How does an event get from one module to the others, at least once?
//!
//! It leaves by the outbox, which the change itself has written, and is deleted there when all have it. In the monolith
//! they are told by a function call. Between services a broker keeps it for each of them. Whoever hears it twice notices.

use std::{error::Error as StdError, time::Duration};

use sqlx::{AssertSqlSafe, query, query_as, types::Json};
use tokio::time::sleep;

use crate::error::Result;
use crate::module::{Database, Event, Module, Numbered};
use crate::orders::Orders;
use crate::recommendations::Recommendations;

/// Between two looks into an outbox.
pub const POLL: Duration = Duration::from_millis(50);
/// Before a broker or a database that failed us is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Where a module writes what it has to tell: the table `outbox` of its schema.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// Whose.
    pub module: Module,
    /// With its schema.
    pub database: Database,
}

impl Outbox {
    /// What is to be told, the oldest first.
    pub async fn next(&self) -> Result<Vec<Numbered>> {
        let schema = self.module.name();
        let take = format!("select id, event from {schema}.outbox order by id limit 100");
        let take = query_as::<_, (i64, Json<Event>)>(AssertSqlSafe(take));
        let events = self.database.within(async |it| take.fetch_all(it).await).await?;
        Ok(events.into_iter().map(|(number, Json(event))| Numbered { number, event }).collect())
    }

    /// It was told. A kill before this tells it again.
    pub async fn forget(&self, told: &[Numbered]) -> Result<()> {
        let numbers: Vec<_> = told.iter().map(|it| it.number).collect();
        let forget = format!("delete from {}.outbox where id = any($1)", self.module.name());
        self.database.execute(query(AssertSqlSafe(forget)).bind(numbers)).await.map(drop)
    }
}

/// How the carrying of events ended: never well.
pub type Carried = std::result::Result<(), Box<dyn StdError + Send + Sync>>;

/// Who listens.
#[derive(Clone, Debug)]
pub enum Listener {
    /// Keeps names and receipts.
    Orders(Orders),
    /// Learns who bought what.
    Recommendations(Recommendations),
}

impl Listener {
    /// Tells it.
    pub async fn hear(&self, event: &Numbered) -> Result<()> {
        match self {
            Self::Orders(it) => it.hear(event).await,
            Self::Recommendations(it) => it.hear(event).await,
        }
    }
}

/// Those of a process who have something to tell, and those who listen.
#[derive(Clone, Debug, Default)]
pub struct Parties {
    /// Who tells.
    pub outboxes: Vec<Outbox>,
    /// Who listens.
    pub listeners: Vec<Listener>,
}

impl Parties {
    // ANCHOR: within
    /// All who listen are in this process, so they are told by a function call.
    pub async fn carry_within(&self) -> Carried {
        loop {
            for outbox in &self.outboxes {
                let events = outbox.next().await?;
                for event in &events {
                    for listener in &self.listeners {
                        listener.hear(event).await?;
                    }
                }
                outbox.forget(&events).await?;
            }
            sleep(POLL).await;
        }
    }
    // ANCHOR_END: within
}

/// Carries events, and begins again when that fails: they wait in the outboxes meanwhile.
pub async fn carry<F: Future<Output = Carried>>(carrying: impl Fn() -> F) {
    loop {
        if let Err(error) = carrying().await {
            tracing::warn!(%error, "events have to wait");
        }
        sleep(PAUSE).await;
    }
}
