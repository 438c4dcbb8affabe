// caught by: keyring::
    /// Asks the source, unless another request made us ask a short while ago.
    pub async fn load_unless_asked_within(&self, time: Duration) -> Result<(), Error> {
        // The mistake: the lock is free again while the source is asked, so all who come meanwhile ask too.
        let asked = self.asked.lock().await.clone();
        if let Some((when, outcome)) = asked
            && when.elapsed() < time
        {
            return outcome;
        }
        let outcome = self.load().await;
        *self.asked.lock().await = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// Asks the source. A key that has gone from there is trusted no more.
    pub async fn load(&self) -> Result<(), Error> {
        (self.load)().await.map(|public| self.replace(public))
    }
