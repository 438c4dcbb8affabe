// caught by: long_url::
impl LongUrl {
    /// Parses what somebody wants to shorten.
    pub fn parse(text: &str, ourselves: &Ourselves) -> Result<Self, &'static str> {
        // The mistake: the parser silently mends bad text, and nothing looks at the text before.
        let url = Url::parse(text).map_err(|_| "is not an absolute URL")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither http nor https");
        }
        if url.as_str().len() > LONGEST {
            return Err("is longer than 2,048 bytes when it is encoded");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("contains a user name or a password");
        }
        if ourselves.are_at(&url) {
            return Err("leads back to this service");
        }
        Ok(Self(url))
    }

    /// The URL as browsers and databases see it: normalised, ASCII.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}
