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
        let says = format!("{USER}.{}", (now + LIFE).unix_timestamp());
        let mac = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, says.as_bytes()));
        Ok(format!("{NAME}={says}.{mac}; Path=/; HttpOnly; SameSite=Lax"))
    }
