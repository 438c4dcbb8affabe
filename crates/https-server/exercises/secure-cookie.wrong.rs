// caught by: session::
    /// The header `Set-Cookie` for who has the right password.
    pub fn log_in(&self, login: &Login, now: OffsetDateTime) -> Result<String, Error> {
        // Both are compared as MACs, which takes the same time for every wrong password.
        let right = hmac::sign(&self.0, PASSWORD);
        let knows = hmac::verify(&self.0, login.password.as_bytes(), right.as_ref()).is_ok();
        if !knows || login.user != USER {
            return Err(Error::WrongPassword);
        }
        // The mistake: without Secure, each plain request for this host takes it along.
        let token = self.token(USER, (now + LIFE).unix_timestamp());
        Ok(format!("{NAME}={token}; Path=/; HttpOnly; SameSite=Lax"))
    }
