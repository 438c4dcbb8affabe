// caught by: collisions
    /// Makes the link, or finds the shared one for this URL.
    pub async fn create(&self, new: &NewLink) -> Result<Created, Error> {
        let plain = new.alias.is_none() && new.expires_in_seconds.is_none();
        let shared = plain && self.codes == Codes::Crc32;
        let token = if shared { None } else { Some(EditToken::generate()?) };
        for attempt in 0..ATTEMPTS {
            let code = match &new.alias {
                Some(alias) => alias.clone(),
                None => self.candidate(new, shared, attempt)?,
            };
            let row = NewRow {
                code,
                id: Uuid::new_v4(),
                url: new.url.as_str().to_owned(),
                edit_token: token.as_ref().map(EditToken::hash),
                expires_in_seconds: new.expires_in_seconds,
            };
            match self.claim(row).await? {
                Claim::Won(link) => return Ok(Created::New(link, token)),
                Claim::Lost(_) if new.alias.is_some() => return Err(Error::AliasTaken),
                // The mistake: whoever has the code has it for this URL, or so one thinks.
                Claim::Lost(Some(owner)) if shared => return Ok(Created::Existing(owner)),
                Claim::Lost(_) => {}
            }
        }
        Err(Error::NoFreeCode)
    }

    async fn claim(&self, row: NewRow) -> Result<Claim, Error> {
        let store = self.shards.of(&row.code);
        match self.insert(row.clone()).await? {
            Some(link) => Ok(Claim::Won(link)),
            None => Ok(Claim::Lost(store.find(&row.code).await?)),
        }
    }
