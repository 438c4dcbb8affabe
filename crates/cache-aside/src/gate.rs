//! Redis is away, and every read goes to the database. What keeps it from drowning?
//!
//! Few readers at a time get through, and the others wait in order, for as long as one call may take. Then they
//! get a 503 rather than a place in an ever longer queue: the database goes on doing what it can.

use std::time::Duration;

use tokio::{sync::Semaphore, time::timeout};

use crate::{
    error::Error,
    store::Store,
    user::{User, UserId},
};

/// Fewer than there are connections: writers always find one, however many read.
const READERS: usize = 12;

/// The readers' way to the database.
#[derive(Debug)]
pub struct Gate {
    store: Store,
    places: Semaphore,
    patience: Duration,
}

impl Gate {
    /// A gate before this database.
    pub fn new(store: Store, patience: Duration) -> Self {
        Self { store, places: Semaphore::new(READERS), patience }
    }

    // ANCHOR: gate
    /// The user, read now.
    pub async fn find(&self, id: UserId) -> Result<Option<User>, Error> {
        self.through(self.store.find(id)).await
    }

    /// Those of them that there are, read now.
    pub async fn find_many(&self, ids: &[UserId]) -> Result<Vec<User>, Error> {
        self.through(self.store.find_many(ids)).await
    }

    async fn through<T>(&self, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let place = timeout(self.patience, self.places.acquire()).await;
        let _place = place.map_err(|_| Error::DatabaseAway)?.map_err(Error::internal)?;
        read.await
    }
    // ANCHOR_END: gate
}
