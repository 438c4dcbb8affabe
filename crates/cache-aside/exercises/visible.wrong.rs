// caught by: redis-away
    /// Returns when no reader, in no process, will be answered with what was before.
    ///
    /// Delete, and not set: of two writers the one that committed last must not be overwritten by the other.
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
        // The mistake: it is written down and will be carried out, so the author can be answered at once. Until then the
        // other processes answer with what was before.
        Ok(written.user)
    }
