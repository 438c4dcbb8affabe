// caught by: keyring::
    /// Asks the source, unless another request made us ask a short while ago.
    pub async fn load_unless_just_asked(&self) -> Result<()> {
        // The mistake: the lock is free again while the source is asked, so all who come meanwhile ask too.
        let asked = self.asked.lock().await.clone();
        let just = asked.filter(|(when, _)| when.elapsed() < COOLDOWN);
        if let Some((_, outcome)) = just {
            return outcome;
        }
        let outcome = self.load().await;
        *self.asked.lock().await = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// Asks the source. A key that has gone from there is trusted no more.
    pub async fn load(&self) -> Result<()> {
        (self.load)().await.map(|public| self.replace(public))
    }
