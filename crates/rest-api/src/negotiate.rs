//! Which representation does the client want, and which version of it? `Accept`, RFC 9110, section 12.5.1.

use axum::extract::{FromRequestParts, Request};
use axum::http::header::{ACCEPT, CONTENT_TYPE, LINK, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::Error;

/// What a body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The old customers, with a `full_name`.
    V1,
    /// The users of today.
    V2,
}

/// What we can write, the best first.
const OFFERS: [(&str, Version); 3] = [
    ("application/json", Version::V2),
    ("application/vnd.worked-answers.v2+json", Version::V2),
    ("application/vnd.worked-answers.v1+json", Version::V1),
];

// ANCHOR: negotiate
/// The offer that the client likes best; nothing if it likes none.
pub fn negotiate(headers: &HeaderMap) -> Option<(&'static str, Version)> {
    let lines: Vec<_> = headers.get_all(ACCEPT).iter().flat_map(HeaderValue::to_str).collect();
    if !headers.contains_key(ACCEPT) {
        return Some(OFFERS[0]);
    }
    let accept = lines.join(",").to_ascii_lowercase();
    let quality = |offer: &str| {
        let weights = accept.split(',').filter_map(|range| weight(range, offer));
        // The most specific range decides: `*/*;q=0.1, application/json` likes JSON.
        weights.max_by_key(|(specific, _)| *specific).map_or(0, |(_, quality)| quality)
    };
    let liked = OFFERS.into_iter().rev().max_by_key(|(offer, _)| quality(offer));
    liked.filter(|(offer, _)| quality(offer) > 0)
}

/// How specific a range is, and its quality in thousandths, if it matches the offer. Nonsense matches nothing.
fn weight(range: &str, offer: &str) -> Option<(u8, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let specific = match parts.next()? {
        "*/*" => 0,
        "application/*" => 1,
        exact if exact == offer => 2,
        _ => return None,
    };
    let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1").parse::<f32>().ok();
    let quality = quality.filter(|quality| (0.0..=1.0).contains(quality))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is from 0 to 1000"
    )]
    Some((specific, (quality * 1_000.0) as u32))
}
// ANCHOR_END: negotiate

/// Refuses what we cannot write before anything is done, and names the type of what we did write.
pub async fn in_a_wanted_type(mut request: Request, next: Next) -> Response {
    let Some((media, version)) = negotiate(request.headers()) else {
        return ([(VARY, "accept")], Error::NotAcceptable).into_response();
    };
    request.extensions_mut().insert(version);
    let mut response = next.run(request).await;
    if response.headers().get(CONTENT_TYPE).is_some_and(|it| it == "application/json") {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    }
    // Without this, a cache would give one client what another one wanted.
    response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    response
}

/// The other way of versioning: by path. Whatever `Accept` says, this is version 1, and it will go (RFC 9745, RFC 8594).
pub async fn of_the_old_version(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Version::V1);
    let headers = [
        ("deprecation", "@1767225600"),
        ("sunset", "Fri, 31 Dec 2027 23:59:59 GMT"),
        (LINK.as_str(), "</users>; rel=\"successor-version\""),
    ];
    let mut response = next.run(request).await;
    for (name, value) in headers {
        response.headers_mut().append(name, HeaderValue::from_static(value));
    }
    response
}

impl<S: Send + Sync> FromRequestParts<S> for Version {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::V2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        negotiate(&headers).map(|(media, _)| media)
    }

    #[test]
    fn the_client_gets_what_it_likes_best() {
        let (json, v1) = (Some("application/json"), Some("application/vnd.worked-answers.v1+json"));
        for (accept, expected) in [
            ("*/*", json),
            ("Application/JSON; charset=utf-8", json),
            ("text/html, application/*;q=0.1", json),
            ("application/vnd.worked-answers.v1+json", v1),
            ("application/json;q=0.5, application/vnd.worked-answers.v1+json;q=0.9", v1),
            ("*/*;q=0.9, application/json;q=0, application/vnd.worked-answers.v2+json;q=0", v1),
            ("application/json;q=0.3, nonsense", json),
            ("text/html", None),
            ("application/json;q=0", None),
            ("application/json;q=2", None),
            ("application/json;q=NaN", None),
            ("nonsense", None),
            ("", None),
            (",;q=1,*", None),
        ] {
            assert_eq!(best(accept), expected, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()).map(|(media, _)| media), json);
    }
}
