//! What surrounds every call? An id by which the log knows it, the headers that a browser obeys, and the origins that may
//! read an answer.
//!
//! Invariant: nothing that a client wrote gets into a line of the log, except for its method. A path is logged as the
//! router knows it.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Extensions, HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use edge::frame::framed;
use tower_http::cors::CorsLayer;
use tracing::{Instrument, field::Empty, info, info_span};
use uuid::Uuid;

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Many times the largest invoice. An upload has a limit of its own.
const MAX_BODY: usize = 64 * 1_024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

// ANCHOR: headers
/// Each tells a browser to do less. No other client cares.
const HEADERS: [(HeaderName, &str); 5] = [
    // Answers are private. No cache may keep one.
    (CACHE_CONTROL, "no-store"),
    // An answer is no page: it loads nothing, runs nothing, and stands in no frame.
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
    // It counts over TLS only; over plain HTTP a browser ignores it.
    (STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    // What is sent as JSON or as a file is not guessed to be a script.
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];
// ANCHOR_END: headers

/// What the log and the audit call a request. Ours, and never the client's: two clients could choose the same.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(pub Uuid);

impl RequestId {
    /// The one that `logged` gave.
    pub fn of(extensions: &Extensions) -> Uuid {
        extensions.get::<Self>().map_or(Uuid::nil(), |id| id.0)
    }
}

/// These calls, with all that surrounds them. Pages of these origins may read the answers.
pub fn secured<S>(calls: Router<S>, origins: Vec<HeaderValue>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    // ANCHOR: cors
    // A list, compared whole. Tokens come in a header that no browser adds by itself, so credentials are not allowed.
    let cors = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE]);
    // ANCHOR_END: cors
    framed(calls, TIMEOUT, MAX_BODY).layer(cors).layer(from_fn(logged))
}

// ANCHOR: logged
async fn logged(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7();
    request.extensions_mut().insert(RequestId(id));
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = path.unwrap_or_else(|| "-".to_owned());
    let span = info_span!("request", %id, user = Empty);
    // For whoever learns who asks. The current span may be another one, within this.
    request.extensions_mut().insert(span.clone());
    // The only line of a client that hangs up before its answer.
    info!(parent: &span, %method, path, "asked");
    let begun = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    info!(parent: &span, %method, path, status, ms = begun.elapsed().as_millis(), "answered");
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A UUID is a value of a header.
    headers.extend(HeaderValue::from_str(&id.to_string()).ok().map(|id| (REQUEST_ID, id)));
    response
}
// ANCHOR_END: logged
