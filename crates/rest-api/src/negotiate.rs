//! Which representation does the client want, and which version of it? `Accept`, RFC 9110, section 12.5.1.

use axum::extract::Request;
use axum::http::header::{ACCEPT, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{AppendHeaders, IntoResponse, Response};

use crate::error::{Error, Result};

/// What a user looks like: the name of its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub &'static str);

/// The old customers, with a `full_name`.
pub const V1: Version = Version("application/vnd.worked-answers.v1+json");
/// The users of today.
pub const V2: Version = Version("application/json");

// ANCHOR: negotiate
/// The version that the client likes best.
pub fn negotiate(headers: &HeaderMap) -> Result<Version> {
    if !headers.contains_key(ACCEPT) {
        return Ok(V2);
    }
    let lines: Vec<_> = headers.get_all(ACCEPT).iter().flat_map(HeaderValue::to_str).collect();
    let accept = lines.join(",").to_ascii_lowercase();
    let quality = |version: Version| {
        let weights = accept.split(',').filter_map(|range| weight(range, version.0));
        // The most specific range decides: `*/*;q=0.1, application/json` likes JSON.
        weights.max_by_key(|(specific, _)| *specific).map_or(0.0, |(_, quality)| quality)
    };
    match [V1, V2].map(quality) {
        [old, new] if old <= 0.0 && new <= 0.0 => Err(Error::NOT_ACCEPTABLE),
        [old, new] if old > new => Ok(V1),
        _ => Ok(V2),
    }
}

/// How specific a range is, and its quality, if it matches the media type. Nonsense matches nothing.
fn weight(range: &str, media_type: &str) -> Option<(u8, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let specific = match parts.next()? {
        "*/*" => 0,
        "application/*" => 1,
        exact if exact == media_type => 2,
        _ => return None,
    };
    let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1").parse().ok();
    quality.filter(|quality| (0.0..=1.0).contains(quality)).map(|quality| (specific, quality))
}
// ANCHOR_END: negotiate

/// Refuses what we cannot write before anything is done.
pub async fn acceptable(request: Request, next: Next) -> Response {
    let answer = match negotiate(request.headers()) {
        Ok(_) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    // Without this, a cache would give one client what another one wanted.
    (AppendHeaders([(VARY, "accept")]), answer).into_response()
}

/// The other way of versioning: by path. Whatever the client accepts, this is version 1, and it will go (RFC 9745, RFC 8594).
pub async fn of_the_old_version(mut request: Request, next: Next) -> Response {
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(V1.0));
    let farewell = [
        ("deprecation", "@1767225600"),
        ("sunset", "Fri, 31 Dec 2027 23:59:59 GMT"),
        ("link", "</users>; rel=\"successor-version\""),
    ];
    (AppendHeaders(farewell), next.run(request).await).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept: &str) -> Option<Version> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        negotiate(&headers).ok()
    }

    #[test]
    fn the_client_gets_what_it_likes_best() {
        let (new, old) = (Some(V2), Some(V1));
        for (accept, expected) in [
            ("*/*", new),
            ("Application/JSON; charset=utf-8", new),
            ("text/html, application/*;q=0.1", new),
            ("application/vnd.worked-answers.v1+json", old),
            ("application/json;q=0.5, application/vnd.worked-answers.v1+json;q=0.9", old),
            ("*/*;q=0.9, application/json;q=0", old),
            ("application/json;q=0.3, nonsense", new),
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
        assert_eq!(negotiate(&HeaderMap::new()).ok(), new);
    }
}
