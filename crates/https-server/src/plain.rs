//! What does the port for plain HTTP answer? Where HTTPS is, and nothing that is worth reading.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Method, Uri},
    response::Response,
    routing::get,
};
use edge::frame::alive;

use crate::{error::Error, redirect::Names};

/// What it has to know.
#[derive(Clone, Debug)]
pub struct Plain {
    /// Ours.
    pub names: Names,
    /// Where an ACME client puts its responses.
    pub challenges: PathBuf,
    /// What the textbook does with an API: redirect it.
    pub redirect_api: bool,
}

/// All of the port. A load balancer may ask for health without TLS.
pub fn router(plain: Plain) -> Router {
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(challenge))
        .route("/healthz", get(alive))
        .route("/readyz", get(alive))
        .fallback(elsewhere)
        .method_not_allowed_fallback(elsewhere)
        .with_state(Arc::new(plain))
}

// ANCHOR: elsewhere
/// A browser that asks for a page is told where it is. Anything else may carry a password or a token, which has crossed
/// the wire already. A redirect would hide that: the client would follow it and go on like this for years.
async fn elsewhere(
    State(plain): State<Arc<Plain>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    if plain.redirect_api || method == Method::GET || method == Method::HEAD {
        plain.names.to_https(&uri, &headers)
    } else {
        Err(Error::InTheClear(plain.names.url()))
    }
}
// ANCHOR_END: elsewhere

/// A certificate authority asks here whether whoever wants a certificate for our name controls it. It has to work
/// before there is a certificate, so it is never redirected.
async fn challenge(
    State(plain): State<Arc<Plain>>,
    token: Result<Path<String>, PathRejection>,
) -> Result<String, Error> {
    let Path(token) = token.map_err(|_| Error::NotFound)?;
    // RFC 8555: base64url. Nothing else can be a path to other files.
    let is_token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if token.is_empty() || !token.chars().all(is_token) {
        return Err(Error::NotFound);
    }
    let response = tokio::fs::read_to_string(plain.challenges.join(token)).await;
    response.map_err(|_| Error::NotFound)
}
