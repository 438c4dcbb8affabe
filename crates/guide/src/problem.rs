//! How does the guide say that it cannot do something? As `application/problem+json` (RFC 9457).

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// The response with this status; `detail` says what happened.
pub fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, headers, Body::from(body.to_string())).into_response()
}
