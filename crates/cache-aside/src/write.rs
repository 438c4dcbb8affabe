//! How does a change become visible everywhere before its author is told that it is done?

use tokio::time::{Instant, sleep_until};

use crate::{
    error::Error,
    service::Service,
    store::Written,
    user::{Email, Name, User, UserId},
};

impl Service {
    /// Makes a user.
    pub async fn create(&self, name: &Name, email: &Email) -> Result<User, Error> {
        self.visible(self.store.insert(name, email).await?).await
    }

    /// Gives a user another name and another address, if nobody has changed it since the client read it.
    pub async fn update(
        &self,
        id: UserId,
        versions: Option<&[i64]>,
        name: &Name,
        email: &Email,
    ) -> Result<User, Error> {
        match self.store.update(id, versions, name, email).await? {
            Some(written) => self.visible(written).await,
            // This asks the database. Redis may still have a user that was just deleted.
            None if self.store.find(id).await?.is_some() => Err(Error::ChangedMeanwhile),
            None => Err(Error::NotFound),
        }
    }

    /// Deletes a user.
    pub async fn delete(&self, id: UserId) -> Result<User, Error> {
        self.visible(self.store.delete(id).await?.ok_or(Error::NotFound)?).await
    }

    // ANCHOR: visible
    /// Returns when no reader in any process will get the old value any more.
    ///
    /// It deletes the key and does not set it: of two writers, the one that committed first could be the last to set.
    async fn visible(&self, written: Written) -> Result<User, Error> {
        // After the commit. A confirmation that began earlier may not know of this change.
        let committed = Instant::now();
        let link = self.trust.any_link();
        if let Some(link) = link.filter(|link| link.origin == written.origin) {
            match link.forget(&[written.user.id]).await {
                Ok(()) => {
                    if let Err(error) = self.store.carried_out(&written.user).await {
                        tracing::debug!(%error, "the watcher will delete it once more");
                    }
                    return Ok(written.user);
                }
                Err(away) => self.trust.doubt(&link, &away),
            }
        }
        // The invalidation stays pending. After this time every process has carried it out, or does not believe Redis.
        sleep_until(committed + self.trust.period).await;
        Ok(written.user)
    }
    // ANCHOR_END: visible
}
