//! The four layers as tower-http has them. Each needs something beside it to do what ours does.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{self, StatusCode},
};
use futures_util::future::ready;
use tower::ServiceBuilder;
use tower_http::{
    auth::AsyncRequireAuthorizationLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use tracing::Span;

use crate::auth::Keys;
use crate::layer::{Inner, Name, around, with_problems};
use crate::request_id::{HEADER, given};
use crate::stack::Settings;
use crate::timing::{line, span};

/// Puts the library's layer of this name around a service.
pub fn layer(name: Name, settings: &Settings, inner: Inner) -> Inner {
    match name {
        Name::RequestId => request_id(inner),
        Name::Trace => trace(inner),
        Name::Auth => auth(Keys::new(&settings.keys), inner),
        Name::Timeout => timeout(Duration::from_millis(settings.timeout), inner),
        _ => inner,
    }
}

// ANCHOR: request_id
/// Two layers, and one step before them: the library takes whatever comes from outside.
fn request_id(inner: Inner) -> Inner {
    let without_a_bad_id = |mut request: Request| {
        if given(request.headers()).is_none() {
            request.headers_mut().remove(HEADER);
        }
        request
    };
    let layers = ServiceBuilder::new()
        .map_request(without_a_bad_id)
        .layer(SetRequestIdLayer::new(HEADER, MakeRequestUuid))
        .layer(PropagateRequestIdLayer::new(HEADER));
    around(&layers, inner)
}
// ANCHOR_END: request_id

fn trace(inner: Inner) -> Inner {
    let answered = |response: &http::Response<Body>, took, _: &Span| line(response, took);
    let layer = TraceLayer::new_for_http().make_span_with(span).on_request(());
    around(&layer.on_response(answered).on_failure(()), inner)
}

fn auth(keys: Keys, inner: Inner) -> Inner {
    let check = move |mut request: Request| {
        let refused = keys.refuse(&mut request);
        ready(refused.map_or(Ok(request), Err))
    };
    around(&AsyncRequireAuthorizationLayer::new(check), inner)
}

// ANCHOR: timeout
/// Its answer has no body, and any status that one likes. A wait in `poll_ready` is not limited.
pub fn timeout(limit: Duration, inner: Inner) -> Inner {
    let layer = TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limit);
    with_problems(around(&layer, inner))
}
// ANCHOR_END: timeout
