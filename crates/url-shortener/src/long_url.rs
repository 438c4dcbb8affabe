//! Which URLs may be shortened?

use std::net::{IpAddr, UdpSocket};

use url::{Host, Url};

/// The longest URL, in bytes, as given and as sent.
pub const LONGEST: usize = 2_048;

/// A URL that a browser may safely be sent to. It is ASCII, so it fits into a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongUrl(Url);

// ANCHOR: parse_url
impl LongUrl {
    /// Parses what somebody wants to shorten. The error says what is wrong, for the person who sent it.
    pub fn parse(text: &str, ourselves: &Ourselves) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("is longer than 2,048 bytes");
        }
        // The parser would silently drop tabs and line ends, and trim spaces. We shorten what was sent, or nothing;
        // and CR LF in a URL is more often an attack than an accident.
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
        // `https://bank.example@evil.example/` leads to evil.example.
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
// ANCHOR_END: parse_url

/// Where this service is reached. A link to it would make a chain of redirects, or a loop.
#[derive(Clone, Debug)]
pub struct Ourselves {
    /// The address that clients see.
    pub public: Url,
    /// The address on which it listens.
    pub listens: Url,
}

impl Ourselves {
    // ANCHOR: ourselves
    /// Whether a URL leads to this service. This does not find a name that somebody else points at our address. Pass
    /// the name that clients use as `--public-url`.
    fn are_at(&self, url: &Url) -> bool {
        // `port` is `None` for a scheme's standard port. So http on port 80 counts as https on 443, since it redirects
        // there.
        let public = host(url) == host(&self.public) && url.port() == self.public.port();
        let port = url.port_or_known_default() == self.listens.port_or_known_default();
        public || port && is_this_machine(url)
    }
    // ANCHOR_END: ourselves
}

/// The address or the name, in one spelling: `[::ffff:127.0.0.1]` is 127.0.0.1, and a name may end in a dot. The parser
/// has read `127.1`, `0x7f000001` and percent signs already.
fn host(url: &Url) -> Option<Result<IpAddr, &str>> {
    Some(match url.host()? {
        Host::Ipv4(address) => Ok(address.into()),
        Host::Ipv6(address) => Ok(IpAddr::V6(address).to_canonical()),
        Host::Domain(name) => Err(name.trim_end_matches('.')),
    })
}

fn is_this_machine(url: &Url) -> bool {
    match host(url) {
        // Only an address of this machine can be bound. Some systems bind no loopback address but 127.0.0.1, so ask for
        // those first.
        Some(Ok(ip)) => ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok(),
        Some(Err(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, &'static str> {
        let url = |url| Url::parse(url).unwrap();
        let ourselves =
            Ourselves { public: url("https://sho.rt/"), listens: url("http://127.0.0.1:3000") };
        LongUrl::parse(text, &ourselves).map(|url| url.as_str().to_owned())
    }

    #[test]
    fn a_link_to_ourselves_is_found_in_every_spelling() {
        for text in [
            "https://sho.rt/a",
            "http://SHO.RT/",
            "https://sho.rt.:443/",
            "http://%73ho.rt",
            "http://127.0.0.1:3000/",
            "http://127.1:3000/",
            "http://0.0.0.0:3000/",
            "http://[::]:3000/",
            "http://[::ffff:7f00:1]:3000/",
            "http://LocalHost.:3000/",
            "https://a.localhost:3000/",
        ] {
            assert_eq!(parse(text), Err("leads back to this service"), "{text}");
        }
        assert!(parse("https://sho.rt:8443/").is_ok());
        assert!(parse("https://not.sho.rt/").is_ok());
        assert!(parse("http://127.0.0.1:3001/").is_ok());
        assert!(parse("http://192.0.2.1:3000/").is_ok());
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
