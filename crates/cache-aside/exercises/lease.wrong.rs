// caught by: stale-race
    /// Gets the right to fill the key, loads, and fills. Or finds what somebody else has filled in.
    pub async fn fill(&self, link: &Link, id: UserId) -> Result<Read, Trouble> {
        let (key, lease) = (link.key(id), value::lease(link.life()));
        let (deadline, mut pause) = (Instant::now() + self.patience, FIRST_PAUSE);
        loop {
            match link.add(&key, &lease, self.lease).await? {
                Added::Yes => return self.fill_leased(link, id, &lease).await,
                // No room: there is nothing to fill.
                Added::Refused => return self.load_only(id).await,
                Added::Found(found) => match value::decode(&found, link.life()) {
                    Content::Value(value) => return Ok(Read::hit(value, link)),
                    Content::Lease if Instant::now() > deadline => return self.load_only(id).await,
                    Content::Lease => {
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Content::Other => {
                        if link.replace(&key, &found, &lease, self.lease).await? {
                            return self.fill_leased(link, id, &lease).await;
                        }
                    }
                },
            }
        }
    }

    async fn fill_leased(&self, link: &Link, id: UserId, lease: &[u8]) -> Result<Read, Trouble> {
        let filled = self.replace(link, id, lease).await;
        if let Err(Trouble::Other(_)) = filled {
            // So that nobody waits for us.
            link.replace(&link.key(id), lease, b"", self.lease).await?;
        }
        filled
    }

    /// Loads, and puts it in the place of `old`.
    pub async fn replace(&self, link: &Link, id: UserId, old: &[u8]) -> Result<Read, Trouble> {
        let begun = Instant::now();
        let (key, user) = (link.key(id), self.gate.find(id).await?);
        let stored = if let Some(life) = self.lives.draw(user.is_some()) {
            let new = self.encode(link, user.clone(), life, begun.elapsed());
            // The mistake: nobody else has the lease, so nobody can have touched the key. The writer's delete has.
            link.set(&key, &new, life).await?
        } else {
            // Not to be kept: the lease goes, or others would wait for it.
            link.replace(&key, old, b"", self.lease).await?;
            false
        };
        Ok(Read { user, source: Source::Miss { stored } })
    }
