// caught by: redis-away
    /// Returns when no reader, in no process, will be answered with what was before.
    ///
    /// Delete, and not set: of two writers the one that committed last must not be overwritten by the other.
    async fn visible(&self, written: Written) -> Result<User, Error> {
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
        // The mistake: it is written down and will be carried out, so the author can be answered at once. Until then the
        // other processes answer with what was before.
        Ok(written.user)
    }
