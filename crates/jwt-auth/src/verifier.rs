//! Who is asking? The one way from a request to its claims.

use std::sync::Arc;

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};

use crate::{
    claims::{Claims, Policy},
    deny::DenyList,
    error::{Error, Result},
    keyring::Keyring,
};

/// Verifies access tokens. Any service that knows where the key set is published can have one: it needs neither the
/// issuer's database nor its secrets.
#[derive(Clone)]
pub struct Verifier {
    policy: Arc<Policy>,
    keyring: Arc<Keyring>,
    /// Without it, a token is valid until it ends, whatever happens.
    deny: Option<DenyList>,
}

impl Verifier {
    /// Verifies by these keys, and asks the deny-list if there is one.
    pub fn new(policy: Policy, keyring: Arc<Keyring>, deny: Option<DenyList>) -> Self {
        Self { policy: Arc::new(policy), keyring, deny }
    }

    // ANCHOR: verify
    /// The claims of the token, if it is to be believed.
    pub async fn verify(&self, token: &str) -> Result<Claims> {
        let kid = Policy::key_id(token)?;
        let key = self.keyring.get(&kid).await?;
        let claims = self.policy.claims(token, &key)?;
        // Last, so that only tokens that we made cost a question.
        if let Some(deny) = &self.deny
            && deny.holds([&claims.sid.to_string(), &kid]).await?
        {
            return Err(Error::InvalidToken("denied"));
        }
        Ok(claims)
    }
    // ANCHOR_END: verify

    /// Whether it can verify at all.
    pub async fn ready(&self) -> Result<()> {
        if let Some(deny) = &self.deny {
            deny.holds(["", ""]).await?;
        }
        self.keyring.public().await.map(drop)
    }
}

// ANCHOR: bearer_token
/// The token of `Authorization: Bearer …` (RFC 6750, section 2.1).
fn bearer_token(headers: &HeaderMap) -> Result<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Error::NoToken)?;
    // Of two, one layer might read the first and another the last.
    if values.next().is_some() {
        return Err(Error::TwoTokens);
    }
    let value = value.to_str().map_err(|_| Error::InvalidToken("not ASCII"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Error::NoToken);
    }
    Ok(token.trim_start_matches(' '))
}
// ANCHOR_END: bearer_token

// ANCHOR: extractor
/// A handler that takes `Claims` is called only if the request has a valid token.
impl<S: Send + Sync> FromRequestParts<S> for Claims
where
    Verifier: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Verifier::from_ref(state).verify(bearer_token(&parts.headers)?).await
    }
}
// ANCHOR_END: extractor

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
        values.map(|value| (AUTHORIZATION, value)).collect()
    }

    #[test]
    fn the_scheme_may_be_written_in_any_case() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c"] {
            assert_eq!(bearer_token(&headers(&[value.as_bytes()])).unwrap(), "a.b.c");
        }
    }

    #[test]
    fn what_is_no_single_bearer_token_is_told_apart() {
        let token = |values: &[&[u8]]| bearer_token(&headers(values)).map(str::to_owned);
        assert!(matches!(token(&[]), Err(Error::NoToken)));
        assert!(matches!(token(&[b"Basic YTpi"]), Err(Error::NoToken)));
        assert!(matches!(token(&[b"Bearer a", b"Bearer a"]), Err(Error::TwoTokens)));
        assert!(matches!(token(&[b"Bearer \xff"]), Err(Error::InvalidToken(_))));
        assert_eq!(token(&[b"Bearer"]).unwrap(), "");
    }
}
