//! How does a client that never heard the answer ask again, without paying twice? With the same key.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The header. See draft-ietf-httpapi-idempotency-key-header.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// A UUID has 36 characters. The longest is a column that an index likes.
const LONGEST: usize = 255;

/// What a client calls one request, however often it sends it.
///
/// We take its characters as they are. The draft wants them between quotation marks, most clients send none,
/// and nothing hangs on it as long as a client is consistent.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct IdempotencyKey(String);

// ANCHOR: parse_key
impl IdempotencyKey {
    /// The one key among the headers.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Error> {
        let mut keys = headers.get_all(HEADER).iter();
        // Two keys are two names for one payment: whichever we took, a retry might find the other.
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(Error::BadKey("must be given, once"));
        };
        match key.to_str() {
            Ok("") => Err(Error::BadKey("is empty")),
            // A proxy may merge two headers into one, with a comma between them.
            Ok(key) if key.contains(',') => Err(Error::BadKey("must be one key, without a comma")),
            Ok(key) if key.len() > LONGEST => Err(Error::BadKey("is longer than 255 characters")),
            Ok(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(key.to_owned())),
            _ => Err(Error::BadKey("must be visible ASCII characters, without spaces")),
        }
    }
}
// ANCHOR_END: parse_key

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::parse(&parts.headers)
    }
}

/// What the key was first used for. Of the parsed body, so that another order of the fields, or a space,
/// does not make another payment of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the body's values, written in one way.
    pub fn of(canonical: &str) -> Self {
        Self(Sha256::digest(canonical).into())
    }

    /// As bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn parse(values: &[&[u8]]) -> Result<IdempotencyKey, Error> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        IdempotencyKey::parse(&headers)
    }

    #[test]
    fn a_key_is_one_word_of_ascii() {
        for good in
            [&b"a"[..], b"0190f5fe-7c00-7a00-8000-000000000000", b"\"quoted\"", &[b'x'; 255]]
        {
            assert!(parse(&[good]).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b"a b", b"a,b", b"a\tb", b"\xff\xfe", "ä".as_bytes(), &[b'x'; 256]] {
            assert!(parse(&[bad]).is_err(), "{bad:?}");
        }
        assert!(parse(&[]).is_err());
        assert!(parse(&[b"a", b"a"]).is_err());
    }
}
