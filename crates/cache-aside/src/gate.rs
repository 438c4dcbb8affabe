//! Redis is away, and every read goes to the database. What keeps it from drowning?
//!
//! Few readers at a time get through, and the others wait in order, for as long as one call may take. Then they
//! get a 503 rather than a place in an ever longer queue: the database goes on doing what it can.

use std::time::Duration;

use tokio::{sync::Semaphore, time::timeout};

use crate::{
    error::Error,
    store::Store,
    user::{UserId, UserJson},
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
    pub async fn find(&self, id: UserId) -> Result<Option<UserJson>, Error> {
        let user = self.through(self.store.find(id)).await?;
        user.as_ref().map(UserJson::of).transpose().map_err(Error::internal)
    }

    /// Each of them that there is, read now.
    pub async fn find_many(&self, ids: &[UserId]) -> Result<Vec<(UserId, UserJson)>, Error> {
        let users = self.through(self.store.find_many(ids)).await?;
        let json = users.iter().map(|user| UserJson::of(user).map(|json| (user.id, json)));
        json.collect::<Result<_, _>>().map_err(Error::internal)
    }

    async fn through<T>(&self, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let place = timeout(self.patience, self.places.acquire()).await;
        let _place = place.map_err(|_| Error::DatabaseAway)?.map_err(Error::internal)?;
        read.await
    }
    // ANCHOR_END: gate
}
