//! How does the guide report an error to a client? As `application/problem+json` (RFC 9457).

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};

/// The response with this status; `detail` says what happened.
pub fn problem(status: StatusCode, detail: &str) -> Response {
    problem_with(status, detail, Map::new())
}

/// The same with further members.
pub fn problem_with(status: StatusCode, detail: &str, members: Map<String, Value>) -> Response {
    let mut body = members;
    body.insert("type".to_owned(), "about:blank".into());
    body.insert("title".to_owned(), status.canonical_reason().into());
    body.insert("status".to_owned(), status.as_u16().into());
    body.insert("detail".to_owned(), detail.into());
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, headers, Body::from(Value::Object(body).to_string())).into_response()
}
