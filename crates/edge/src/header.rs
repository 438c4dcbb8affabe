//! How is a header read that must occur exactly once? How does a service admit only callers with its key? And what is
//! an origin?

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// The only value of a header, without the blanks around it, if it is visible ASCII and blanks. Two values count as
/// none: another program might read the other one.
pub fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    value.to_str().ok().map(str::trim)
}

/// The token of `Authorization: Bearer …`. The scheme is compared without regard to case.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = only(headers, "authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

/// Whether this is an origin as browsers send it: a scheme, a host, perhaps a port, and nothing after that. `null` and
/// `*` are not.
pub fn is_origin(value: &HeaderValue) -> bool {
    let Some((scheme, host)) = value.to_str().ok().and_then(|it| it.split_once("://")) else {
        return false;
    };
    // A browser writes small letters, and the header is compared as it is.
    let is_lower = !host.contains(char::is_uppercase);
    let is_host = host.parse::<Authority>().is_ok_and(|it| !it.as_str().contains(['@', '*']));
    matches!(scheme, "http" | "https") && is_lower && is_host
}

/// The key that callers of a service must send, if the service has one. We keep and compare digests only: the time of a
/// comparison of digests reveals nothing about the key.
#[derive(Clone, Copy, Debug)]
pub struct ServiceKey(Option<[u8; 32]>);

impl ServiceKey {
    /// Without a key, or with an empty one, every caller is admitted.
    pub fn new(key: Option<&str>) -> Self {
        Self(key.filter(|key| !key.is_empty()).map(|key| Sha256::digest(key).into()))
    }

    /// Whether these headers contain the key.
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = || bearer(headers).map(|token| Sha256::digest(token).into());
        self.0.is_none_or(|key| shown() == Some(key))
    }
}

/// 401 for a request without the key: `layer(from_fn_with_state(key, with_key))`.
pub async fn with_key(State(key): State<ServiceKey>, request: Request, next: Next) -> Response {
    if key.is_shown(request.headers()) {
        return next.run(request).await;
    }
    Problem::new(StatusCode::UNAUTHORIZED, "send the key: `authorization: Bearer KEY`")
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let value =
            |value: &&[u8]| (header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        values.iter().map(value).collect()
    }

    #[test]
    fn the_key_is_shown_in_any_case_and_with_any_blanks() {
        let key = ServiceKey::new(Some("s3cret"));
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER   s3cret", " bearer s3cret "] {
            assert!(key.is_shown(&headers(&[good.as_bytes()])), "{good:?}");
        }
    }

    #[test]
    fn what_does_not_show_the_key_once_does_not_show_it() {
        let key = ServiceKey::new(Some("s3cret"));
        let right = &b"Bearer s3cret"[..];
        for bad in [
            &[][..],
            &[right, right],
            &[right, b"Bearer other"],
            &[b"s3cret"],
            &[b"Bearer"],
            &[b"Bearer "],
            &[b"Bearer s3cre"],
            &[b"Bearer s3crets"],
            &[b"Basic s3cret"],
            &[b"Bearer \xff\xfe"],
        ] {
            assert!(!key.is_shown(&headers(bad)), "{bad:?}");
        }
    }

    #[test]
    fn without_a_key_everybody_gets_in() {
        for none in [None, Some("")] {
            assert!(ServiceKey::new(none).is_shown(&headers(&[])), "{none:?}");
        }
    }

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_path() {
        let is_origin = |text: &'static str| is_origin(&HeaderValue::from_static(text));
        for good in ["https://app.example", "http://127.0.0.1:8000", "http://[::1]:8000"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/a",
            "https://app.example?",
            "https://App.example",
            "https://*.example",
            "https://ada@app.example",
            "file://app.example",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
