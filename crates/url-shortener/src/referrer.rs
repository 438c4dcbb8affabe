//! Where did a click come from? Only the host is kept: paths and queries tell too much about people.

use std::{borrow::Cow, convert::Infallible};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::REFERER, request::Parts},
};
use url::Url;

/// What is counted for a click without a usable `Referer`.
const DIRECT: &str = "direct";
/// The longest name in the DNS (RFC 1035). Also keeps what strangers can store small.
const MAX_BYTES: usize = 253;

/// The host of the page on which a link was clicked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Referrer(Cow<'static, str>);

impl Referrer {
    fn of(headers: &HeaderMap) -> Self {
        let host = headers.get(REFERER).and_then(|value| {
            let url = Url::parse(value.to_str().ok()?).ok()?;
            let host = url.host_str().filter(|host| host.len() <= MAX_BYTES)?;
            matches!(url.scheme(), "http" | "https").then(|| host.to_owned())
        });
        Self(host.map_or(Cow::Borrowed(DIRECT), Cow::Owned))
    }

    /// The host, in lower case and without a port, or `direct`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for Referrer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_host_of_a_web_page_is_kept() {
        for (header, host) in [
            ("https://News.Example:8443/secret?q=1", "news.example"),
            ("http://[::1]/", "[::1]"),
            ("android-app://com.example/", DIRECT),
            ("about:blank", DIRECT),
            ("no URL", DIRECT),
            (&format!("http://{}/", "a.".repeat(200)), DIRECT),
        ] {
            let value = HeaderValue::from_str(header).unwrap();
            assert_eq!(Referrer::of(&HeaderMap::from_iter([(REFERER, value)])).as_str(), host);
        }
        assert_eq!(Referrer::of(&HeaderMap::new()).as_str(), DIRECT);
    }
}
