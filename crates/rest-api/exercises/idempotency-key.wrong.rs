// caught by: twice
    /// A new user; or, if the key has come before, what it got then.
    pub async fn create(&self, new: &NewUser, claim: Option<Claim>) -> Result<User> {
        self.transaction(async |tx| {
            // The mistake: the key is looked at last. By then the address is taken, by the first request itself.
            let user = write(tx, INSERT, Uuid::now_v7(), new).await?.ok_or(Error::EMAIL_TAKEN)?;
            if let Some((key, fingerprint)) = claim {
                let add = "insert into idempotency_keys (key, fingerprint, answer) values ($1, $2, $3)";
                let add = sqlx::query(add).bind(&key).bind(fingerprint).bind(Json(Some(&user)));
                add.execute(tx).await?;
            }
            Ok(user)
        })
        .await
    }
