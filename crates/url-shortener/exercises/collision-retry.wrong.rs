// caught by: collisions
    /// Makes the link, or finds the one that is there for everybody.
    pub async fn create(&self, new: &NewLink) -> Result<Created, Error> {
        if let Some(alias) = &new.alias {
            return match self.claim(alias.code(), new).await? {
                Claim::Won(link) => Ok(Created::New(link)),
                Claim::Lost(_) => Err(Error::AliasTaken),
            };
        }
        for attempt in 0..ATTEMPTS {
            match self.claim(&self.candidate(new, attempt).await?, new).await? {
                Claim::Won(link) => return Ok(Created::New(link)),
                // The mistake: whoever has the code has it for this URL, or so one thinks.
                Claim::Lost(Some(owner)) if self.is_shared(new) => {
                    return Ok(Created::Existing(owner));
                }
                Claim::Lost(_) => {}
            }
        }
        Err(Error::NoFreeCode)
    }

    async fn claim(&self, code: &Code, new: &NewLink) -> Result<Claim, Error> {
        let store = self.shards.of(code);
        let won = store
            .insert(code, new.url.as_str(), self.is_shared(new), new.expires_in_seconds)
            .await?;
        match won {
            Some(link) => Ok(Claim::Won(link)),
            None => Ok(Claim::Lost(store.find(code).await?)),
        }
    }
