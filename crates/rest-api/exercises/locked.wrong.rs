// caught by: lost-update
    /// Lets `decide` see the user, if there is one, and makes it what that returns; whether it was created.
    pub async fn replace(
        &self,
        id: Uuid,
        decide: impl FnOnce(Option<&User>) -> Result<NewUser>,
    ) -> Result<(User, bool)> {
        // The mistake: it is read here and written there, and in between another request does the same.
        let user = match self.find(id).await {
            Err(Error::Refused(404, _)) => None,
            found => Some(found?),
        };
        let new = decide(user.as_ref())?;
        self.transaction(async |tx| {
            lock(tx, id).await?;
            let Some(user) = user else {
                let created = write(tx, INSERT, id, &new).await?.map(|user| (user, true));
                // The address may be taken by this very request, which came twice: then the user is there.
                let there = created.is_none() && lock(tx, id).await?.is_some();
                return created.ok_or(if there { Error::CHANGED } else { Error::EMAIL_TAKEN });
            };
            Ok((write(tx, UPDATE, id, &new).await?.unwrap_or(user), false))
        })
        .await
    }
