// caught by: collisions
    /// Makes the link, or finds the shared one for this URL.
    pub async fn create(
        &self,
        url: &LongUrl,
        alias: Option<&Code>,
        ttl: Option<i64>,
    ) -> Result<Created, Error> {
        let shared = alias.is_none() && ttl.is_none();
        let token = if shared { None } else { Some(EditToken::generate()?) };
        let edit_token = token.as_ref().map(EditToken::hash);
        for collisions in 0..ATTEMPTS {
            let code = match alias {
                Some(alias) => alias.clone(),
                None if shared => crc32_code(url.as_str(), collisions),
                None => random_code()?,
            };
            let (id, store) = (Uuid::new_v4(), self.shards.of(&code));
            let new = NewLink { code: code.clone(), id, url: url.clone(), edit_token, ttl };
            if let Some(link) = self.insert(new).await? {
                return Ok(Created::New(link, token));
            }
            match store.find(&code).await? {
                Some(_) if alias.is_some() => return Err(Error::AliasTaken),
                // The mistake: this takes it for granted that the code's owner has the same URL.
                Some(owner) if shared => return Ok(Created::Existing(owner)),
                _ => {}
            }
        }
        Err(Error::NoFreeCode)
    }
