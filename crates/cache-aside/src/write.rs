//! How does a change become visible everywhere before its author is told that it is done?

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::{
    error::Error,
    store::{Store, Written},
    trust::Trust,
    user::{Email, Name, User, UserId},
};

/// Changes users.
#[derive(Debug)]
pub struct Writer {
    /// Where they are kept.
    pub store: Store,
    /// The way to Redis.
    pub trust: Arc<Trust>,
}

impl Writer {
    /// Makes a user.
    pub async fn create(&self, name: &Name, email: &Email) -> Result<User, Error> {
        self.visible(self.store.insert(name, email).await?).await
    }

    /// Gives a user another name and another address.
    pub async fn update(&self, id: UserId, name: &Name, email: &Email) -> Result<User, Error> {
        self.visible(self.store.update(id, name, email).await?.ok_or(Error::NotFound)?).await
    }

    /// Deletes a user.
    pub async fn delete(&self, id: UserId) -> Result<User, Error> {
        self.visible(self.store.delete(id).await?.ok_or(Error::NotFound)?).await
    }

    // ANCHOR: visible
    /// Returns when no reader, in no process, will be answered with what was before.
    ///
    /// Delete, and not set: of two writers the one that committed last must not be overwritten by the other.
    async fn visible(&self, written: Written) -> Result<User, Error> {
        // After the commit. A confirmation that began earlier may not know of this change.
        let committed = Instant::now();
        if let Some(link) = self.trust.any_link() {
            match link.delete(&[link.key(written.user.id)]).await {
                Ok(()) => {
                    if let Err(error) = self.store.carried_out(written.invalidation).await {
                        tracing::debug!(%error, "the watcher will delete it once more");
                    }
                    return Ok(written.user);
                }
                Err(away) => self.trust.lose(&link, &away),
            }
        }
        // It stays pending. After this time every process has carried it out, or does not believe Redis.
        sleep_until(committed + self.trust.period).await;
        Ok(written.user)
    }
    // ANCHOR_END: visible
}
