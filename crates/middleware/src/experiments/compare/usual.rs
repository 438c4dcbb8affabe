//! The layers that everybody takes, as they come, and a handler that says in JSON what is wrong.

use std::time::Duration;

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde_json::{Value, json};
use tower::ServiceBuilder;
use tower_http::{
    auth::AsyncRequireAuthorizationLayer, catch_panic::CatchPanicLayer,
    limit::RequestBodyLimitLayer, timeout::TimeoutLayer,
};

/// The same calls, as far as errors are concerned.
pub fn router() -> Router {
    let check = |request: axum::extract::Request| async {
        let open = !request.uri().path().starts_with("/notes");
        let shown = request.headers().contains_key("authorization");
        let refusal =
            || axum::http::Response::builder().status(401).body(axum::body::Body::empty());
        if open || shown { Ok(request) } else { Err(refusal().unwrap_or_default()) }
    };
    let slow = async || {
        std::future::pending::<()>().await;
    };
    let timeout = Duration::from_millis(200);
    Router::new()
        .route("/notes", post(async |Json(_): Json<Value>| ()).get(async || ()))
        .route(
            "/notes/{id}",
            get(async || (StatusCode::NOT_FOUND, Json(json!({ "error": "no note" })))),
        )
        .route("/echo", post(async |body: String| body))
        .route("/panic", post(async |_: HeaderMap| -> StatusCode { panic!("asked for") }))
        .route("/slow", get(slow))
        .layer(RequestBodyLimitLayer::new(1 << 20))
        .layer(
            ServiceBuilder::new()
                .layer(CatchPanicLayer::new())
                .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, timeout))
                .layer(AsyncRequireAuthorizationLayer::new(check)),
        )
}
