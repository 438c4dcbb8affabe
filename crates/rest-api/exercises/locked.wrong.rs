// caught by: lost-update
    /// Lets `decide` see the user, if there is one, and makes it what that returns; whether it was created.
    pub async fn replace(
        &self,
        id: Uuid,
        decide: impl FnOnce(Option<&User>) -> Result<NewUser, Error>,
    ) -> Result<(User, bool), Error> {
        // The mistake: it is read here and written there, and in between another request does the same.
        let user = match self.find(id).await {
            Err(Error::NotFound) => None,
            found => Some(found?),
        };
        let new = decide(user.as_ref())?;
        let replace = async |tx: &mut PgConnection| -> Decided<(User, bool)> {
            lock(tx, id).await?;
            Ok(match user {
                None => insert(tx, id, &new).await?.map(|it| (it, true)).ok_or(Error::EmailTaken),
                Some(user) if new.is(&user) => Ok((user, false)),
                Some(_) => Ok((update(tx, id, &new).await?, false)),
            })
        };
        self.database.transaction(replace).await?
    }
