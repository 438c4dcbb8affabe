// caught by: forgeries
    /// The id of the key that the token claims to be signed with.
    pub fn key_id(token: &str) -> Result<String> {
        // The mistake: the library reads any header, and nobody asks what else is in it, or for what the token was made.
        let header =
            jsonwebtoken::decode_header(token).map_err(|_| Error::InvalidToken("header"))?;
        header.kid.ok_or(Error::InvalidToken("no key"))
    }
