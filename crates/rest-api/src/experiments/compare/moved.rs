//! The same service below another path, as behind a gateway that has been told to move it.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderValue, StatusCode, header::CONTENT_LENGTH},
    middleware::map_response,
    response::{IntoResponse, Response},
};

/// Longer than any answer here.
const LONGEST: usize = 64 * 1_024 * 1_024;

/// These calls below `prefix`, and no longer where they were. The gateway moves the links in each answer too.
pub fn below(prefix: &'static str, calls: Router) -> Router {
    let calls = calls.layer(map_response(move |answer| links_moved(answer, prefix)));
    Router::new().nest_service(prefix, calls)
}

async fn links_moved(answer: Response, prefix: &'static str) -> Response {
    let (mut parts, body) = answer.into_parts();
    let Ok(bytes) = to_bytes(body, LONGEST).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let text = String::from_utf8_lossy(&bytes);
    let moved = text.replace("\"href\":\"/", &format!("\"href\":\"{prefix}/"));
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(moved.len()));
    Response::from_parts(parts, Body::from(moved))
}
