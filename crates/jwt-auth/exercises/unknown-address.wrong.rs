// caught by: password::
    /// Whether this is the password of the hash.
    pub async fn verify(&self, password: Password, hash: Option<&str>) -> Result<bool> {
        // The mistake: for nobody there is nothing to compare, and the answer comes at once.
        let Some(hash) = hash else { return Ok(false) };
        let known = PasswordHash::new(hash).map_err(Error::internal)?;
        let argon2 = self.argon2.clone();
        let matches = move || argon2.verify_password(password.0.as_bytes(), &known).is_ok();
        self.in_turn(matches).await
    }
