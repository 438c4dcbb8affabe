// caught by: stale-race
    /// Gets the right to fill the key, loads, and fills. Or finds what somebody else has filled in.
    pub async fn fill(&self, link: &Link, id: UserId) -> Result<Read, Trouble> {
        let token = value::token();
        let (deadline, mut pause) = (Instant::now() + self.patience, FIRST_PAUSE);
        loop {
            match link.add(id, &token, self.lease).await? {
                Added::Yes => return self.fill_leased(link, id, &token).await,
                // No room: there is nothing to fill.
                Added::Refused => return self.load_only(id).await,
                Added::Found(Content::Value(value)) => {
                    return Ok(Read::hit(Place::Redis, value, link.now()));
                }
                Added::Found(Content::Lease) if Instant::now() > deadline => {
                    return self.load_only(id).await;
                }
                Added::Found(Content::Lease) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Added::Found(Content::Other) => link.forget(&[id]).await?,
            }
        }
    }

    async fn fill_leased(&self, link: &Link, id: UserId, token: &str) -> Result<Read, Trouble> {
        let filled = self.replace(link, id, token).await;
        if let Err(Trouble::Other(_)) = filled {
            self.give_back(link, id, token).await?;
        }
        filled
    }

    /// Loads, and puts it in the place of what has this token: our lease, or a value that is to be refreshed.
    pub async fn replace(&self, link: &Link, id: UserId, token: &str) -> Result<Read, Trouble> {
        let begun = Instant::now();
        let user = self.store.find(id).await?;
        let stored = self.put(link, id, token, user.clone(), begun.elapsed()).await?;
        Ok(Read { user, source: Source::Miss { stored } })
    }

    /// Puts what was loaded in the place of what has this token. If that is not there any more, somebody has changed
    /// the user since, and what was loaded may be old.
    pub async fn put(
        &self,
        link: &Link,
        id: UserId,
        token: &str,
        user: Option<UserJson>,
        load_time: Duration,
    ) -> Result<bool, Trouble> {
        let Some(life) = self.lives.draw(user.is_some()) else {
            self.give_back(link, id, token).await?;
            return Ok(false);
        };
        let expires_at = link.now() + u64::try_from(life.as_millis()).unwrap_or(u64::MAX / 2);
        let new = Value { token: value::token(), user, expires_at, load_time };
        // The mistake: nobody else has the lease, so nobody can have touched the key. The writer's delete has.
        link.forget(&[id]).await?;
        link.add(id, token, life).await?;
        Ok(link.replace(id, token, &new.encode(), life).await?)
    }

    /// Deletes the lease, so that nobody waits for it.
    pub async fn give_back(&self, link: &Link, id: UserId, token: &str) -> Result<(), Trouble> {
        link.replace(id, token, b"", self.lease).await?;
        Ok(())
    }
