//! How is one user read? Redis first, then the database.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    error::Error,
    flight::{Flights, Turn},
    lease::Loader,
    link::Link,
    refresh,
    source::{Read, Source},
    trust::{Trouble, Trust},
    user::UserId,
    value::{self, Content},
};

/// What keeps many readers of one key from becoming many queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Stampede {
    /// Nothing: the textbook, with its race.
    Naive,
    /// One loader for a key in each process.
    SingleFlight,
    /// One loader for a key in all processes, and no stale fill.
    #[default]
    Lease,
}

/// Reads users.
#[derive(Debug)]
pub struct Reader {
    /// Whether Redis is to be believed.
    pub trust: Arc<Trust>,
    /// Who loads what is not there.
    pub loader: Loader,
    /// What is being loaded.
    pub flights: Arc<Flights>,
    /// Against stampedes.
    pub stampede: Stampede,
    /// For early refreshes: 1 as the paper has it, 0 for none.
    pub beta: f64,
    /// Loads, which go on when the client that asked first has gone.
    pub tasks: TaskTracker,
}

impl Reader {
    // ANCHOR: get
    /// The user, as it is now or was at some moment since this was called.
    pub async fn get(self: &Arc<Self>, id: UserId) -> Result<Read, Error> {
        let Some(link) = self.trust.link().await else { return self.bypass(id).await };
        match self.through(&link, id).await {
            Ok(read) => Ok(read),
            Err(Trouble::Other(error)) => Err(error),
            Err(Trouble::Redis(away)) => {
                self.trust.lose(&link, &away);
                self.bypass(id).await
            }
        }
    }

    async fn through(self: &Arc<Self>, link: &Arc<Link>, id: UserId) -> Result<Read, Trouble> {
        let mut give_up_at = None;
        loop {
            if let Some(read) = self.look(link, id).await? {
                return Ok(read);
            }
            if self.stampede == Stampede::Naive {
                return self.loader.fill_blindly(link, id).await;
            }
            let give_up_at =
                *give_up_at.get_or_insert_with(|| Instant::now() + self.loader.patience);
            if Instant::now() > give_up_at {
                // What it waited for was not stored, or deleted at once.
                return self.loader.load_only(id).await;
            }
            match self.flights.board(id) {
                Turn::Follow(mut end) => {
                    // An error: it has ended. That is all that is ever told.
                    let _ = end.changed().await;
                }
                Turn::Lead(landing) => {
                    let (reader, link) = (Arc::clone(self), Arc::clone(link));
                    // A task, so that a client that goes away does not leave its followers and a lease behind.
                    let load = self.tasks.spawn(async move {
                        let _landing = landing;
                        match reader.stampede {
                            Stampede::Lease => reader.loader.fill(&link, id).await,
                            _ => reader.loader.fill_blindly(&link, id).await,
                        }
                    });
                    return load.await.map_err(Error::internal)?;
                }
            }
        }
    }
    // ANCHOR_END: get

    /// What Redis has, if it can be used. Perhaps starts a refresh.
    async fn look(self: &Arc<Self>, link: &Arc<Link>, id: UserId) -> Result<Option<Read>, Trouble> {
        let Some(found) = link.get(&link.key(id)).await? else { return Ok(None) };
        let Content::Value(value) = value::decode(&found, link.life()) else { return Ok(None) };
        let load_time = value.load_time;
        let read = Read::hit(value, link);
        if let Source::Hit { ttl } = read.source
            && refresh::draw(ttl, load_time, self.beta)
        {
            self.refresh(link, id, found);
        }
        Ok(Some(read))
    }

    // ANCHOR: refresh
    /// Reloads in the background what is still good. Nobody waits for it, so a failure only costs the chance.
    fn refresh(self: &Arc<Self>, link: &Arc<Link>, id: UserId, old: Vec<u8>) {
        let Turn::Lead(landing) = self.flights.board(id) else { return };
        let (reader, link) = (Arc::clone(self), Arc::clone(link));
        self.tasks.spawn(async move {
            let _landing = landing;
            if let Err(trouble) = reader.loader.replace(&link, id, &old).await {
                tracing::debug!(%trouble, "not refreshed");
            }
        });
    }
    // ANCHOR_END: refresh

    async fn bypass(&self, id: UserId) -> Result<Read, Error> {
        Ok(Read { user: self.loader.gate.find(id).await?, source: Source::Bypass })
    }
}
