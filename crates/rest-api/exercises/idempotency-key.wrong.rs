// caught by: twice
    /// A new user; or, if the key has come before, what it got then.
    pub async fn create(&self, new: &NewUser, claim: Option<Claim>) -> Result<User, Error> {
        let create = async |tx: &mut PgConnection| -> Decided<User> {
            // The mistake: the key is looked at last. By then the address is taken, by the first request itself.
            let Some(user) = insert(tx, Uuid::now_v7(), new).await? else {
                return Ok(Err(Error::EmailTaken));
            };
            if let Some((key, fingerprint)) = claim {
                sqlx::query("insert into idempotency_keys (key, fingerprint, answer) values ($1, $2, $3)")
                    .bind(&key)
                    .bind(fingerprint)
                    .bind(Json(Some(&user)))
                    .execute(tx)
                    .await?;
            }
            Ok(Ok(user))
        };
        self.database.transaction(create).await?
    }
