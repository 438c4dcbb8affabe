// caught by: redis-away
    /// Returns when no reader in any process will get the old value any more.
    ///
    /// It deletes the key and does not set it: of two writers, the one that committed first could be the last to set.
    async fn visible(&self, written: Written) -> Result<User, Error> {
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
        // The mistake: the invalidation is written down, so this answers at once. Until it is carried out, the other
        // processes answer with the old value.
        Ok(written.user)
    }
