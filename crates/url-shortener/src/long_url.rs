//! Which URLs may be shortened?

use url::{Host, Url};

/// The longest URL, in bytes, as given and as sent.
pub const LONGEST: usize = 2_048;

/// A URL that a browser may safely be sent to. It is ASCII, so it fits into a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongUrl(Url);

// ANCHOR: parse_url
impl LongUrl {
    /// Parses what somebody wants to shorten. `ourselves` is where this service is reached: a link to it
    /// would make a chain, or a loop. The error says what is wrong, for the person who sent it.
    pub fn parse(text: &str, ourselves: &Url) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("is longer than 2,048 bytes");
        }
        // The parser would drop tabs and line ends silently, and trim spaces. What is shortened has to be
        // what was sent, and a CR LF in a URL is an attack more often than an accident.
        if text.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err("contains a space or a control character");
        }
        let url = Url::parse(text).map_err(|_| "is not an absolute URL")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is neither http nor https");
        }
        // The parser is as lenient as a browser: `http:///a` is read as `http://a`.
        let rest = &text[url.scheme().len()..];
        if !rest.starts_with("://") || rest.starts_with(":///") {
            return Err("has no host");
        }
        if url.as_str().len() > LONGEST {
            return Err("is longer than 2,048 bytes when it is encoded");
        }
        // `https://bank.example@evil.example/` is how people are misled.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("contains a user name or a password");
        }
        if is_same_place(&url, ourselves) {
            return Err("leads back to this service");
        }
        Ok(Self(url))
    }

    /// The URL as browsers and databases see it: normalised, ASCII.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}
// ANCHOR_END: parse_url

/// The same host, and the same port or both on a standard one (80 redirects to 443).
fn is_same_place(url: &Url, ourselves: &Url) -> bool {
    let host = |url: &Url| match url.host() {
        // A name may end in a dot and mean the same.
        Some(Host::Domain(name)) => Some(name.trim_end_matches('.').to_owned()),
        other => other.map(|host| host.to_string()),
    };
    let (one, two) = (url.port(), ourselves.port());
    host(url) == host(ourselves) && one == two
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, &'static str> {
        let ourselves = Url::parse("https://sho.rt/").unwrap();
        LongUrl::parse(text, &ourselves).map(|url| url.as_str().to_owned())
    }

    #[test]
    fn a_link_to_ourselves_is_found_in_every_spelling() {
        for text in
            ["https://sho.rt/a", "http://SHO.RT/", "https://sho.rt.:443/", "http://%73ho.rt"]
        {
            assert_eq!(parse(text), Err("leads back to this service"), "{text}");
        }
        assert!(parse("https://sho.rt:8443/").is_ok());
        assert!(parse("https://not.sho.rt/").is_ok());
    }

    #[test]
    fn a_host_is_needed() {
        for text in
            ["http://", "http:///", "http:///a", "https:////a", "http:a", "https:/a.example"]
        {
            assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn the_length_counts_before_and_after_encoding() {
        let fits = format!("https://a.example/{}", "a".repeat(LONGEST - 18));
        assert_eq!(parse(&fits), Ok(fits.clone()));
        assert!(parse(&format!("{fits}a")).is_err());
        // 683 letters of two bytes each, and six when they are encoded.
        assert!(parse(&format!("https://a.example/{}", "ä".repeat(683))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_parses_is_one_line_of_ascii_that_parses_to_itself(text in "https?://\\PC{1,40}") {
            if let Ok(url) = parse(&text) {
                proptest::prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{}", url);
                proptest::prop_assert_eq!(parse(&url), Ok(url.clone()));
            }
        }
    }
}
