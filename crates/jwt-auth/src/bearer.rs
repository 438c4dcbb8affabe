//! Where in a request is the token? As a tower layer for any service, and as an extractor for an axum handler.

use std::task::{Context, Poll};

use axum::{
    extract::{FromRef, FromRequestParts, Request},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use tower::{Layer, Service};

use crate::{claims::Claims, error::Error, verifier::Verifier};

// ANCHOR: bearer_token
/// The token of `Authorization: Bearer …` (RFC 6750, section 2.1).
pub fn token(headers: &HeaderMap) -> Result<&str, Error> {
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
/// A handler that takes `Claims` is called only by who has a valid token.
impl<S: Send + Sync> FromRequestParts<S> for Claims
where
    Verifier: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        // A layer may have verified it already.
        if let Some(claims) = parts.extensions.get::<Self>() {
            return Ok(claims.clone());
        }
        Verifier::from_ref(state).verify(token(&parts.headers)?).await
    }
}
// ANCHOR_END: extractor

/// Lets requests with a valid token pass, and leaves its [`Claims`] in their extensions.
#[derive(Clone)]
pub struct RequireToken {
    verifier: Verifier,
}

impl RequireToken {
    /// By this verifier.
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for RequireToken {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, verifier: self.verifier.clone() }
    }
}

/// A service behind [`RequireToken`].
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    verifier: Verifier,
}

// ANCHOR: guarded
impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // The one that was polled ready is used; its clone waits for the next call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let verifier = self.verifier.clone();
        Box::pin(async move {
            let claims = match token(request.headers()) {
                Ok(token) => verifier.verify(token).await,
                Err(error) => Err(error),
            };
            match claims {
                Ok(claims) => {
                    request.extensions_mut().insert(claims);
                    inner.call(request).await
                }
                Err(error) => Ok(error.into_response()),
            }
        })
    }
}
// ANCHOR_END: guarded

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
            assert_eq!(token(&headers(&[value.as_bytes()])).unwrap(), "a.b.c");
        }
    }

    #[test]
    fn what_is_no_single_bearer_token_is_told_apart() {
        assert!(matches!(token(&headers(&[])), Err(Error::NoToken)));
        assert!(matches!(token(&headers(&[b"Basic YTpi"])), Err(Error::NoToken)));
        assert!(matches!(token(&headers(&[b"Bearer a", b"Bearer a"])), Err(Error::TwoTokens)));
        assert!(matches!(token(&headers(&[b"Bearer \xff"])), Err(Error::InvalidToken(_))));
        assert_eq!(token(&headers(&[b"Bearer"])).unwrap(), "");
    }
}
