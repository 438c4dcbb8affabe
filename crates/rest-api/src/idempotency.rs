//! How does a client that never heard the answer ask again, without creating two? With the same `Idempotency-Key`.

use axum::http::HeaderMap;
use edge::header::only;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::user::UserInput;

/// See draft-ietf-httpapi-idempotency-key-header.
const HEADER: &str = "idempotency-key";

/// What a client calls one request, however often it sends it, and a fingerprint of the request.
pub type Claim = (String, Vec<u8>);

/// The client may call the request nothing.
pub fn claim(headers: &HeaderMap, body: &UserInput) -> Result<Option<Claim>> {
    if !headers.contains_key(HEADER) {
        return Ok(None);
    }
    // With two keys, which a proxy may have merged with a comma, a retry might be found under the other one.
    let is_key = |key: &&str| (1..=255).contains(&key.len()) && !key.contains([' ', '\t', ',']);
    let key = only(headers, HEADER).filter(is_key).ok_or(Error::BAD_KEY)?;
    // Of the parsed body, so that spaces or another order of the fields make no other body.
    let fingerprint = Sha256::digest(serde_json::to_vec(body).unwrap_or_default());
    Ok(Some((key.to_owned(), fingerprint.to_vec())))
}
