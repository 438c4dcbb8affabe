//! How does a client that never heard the answer ask again, without creating two? With the same `Idempotency-Key`.

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};

use crate::{error::Error, user::UserInput};

/// The header. See draft-ietf-httpapi-idempotency-key-header.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// What a client calls one request, however often it sends it. It may call it nothing.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let mut keys = parts.headers.get_all(HEADER).iter();
        let (key, None) = (keys.next(), keys.next()) else { return Err(Error::BadKey) };
        let Some(key) = key else { return Ok(Self(None)) };
        // With two keys, which a proxy may have merged with a comma, a retry might be found under the other one.
        let is_key = |key: &&str| {
            (1..=255).contains(&key.len())
                && key.bytes().all(|it| it.is_ascii_graphic() && it != b',')
        };
        let key = key.to_str().ok().filter(is_key).ok_or(Error::BadKey)?;
        Ok(Self(Some(key.to_owned())))
    }
}

/// What the key was first used for. Of the parsed body, so that spaces or another order of the fields make no other body.
pub fn fingerprint(body: &UserInput) -> Vec<u8> {
    Sha256::digest(serde_json::to_vec(body).unwrap_or_default()).to_vec()
}
