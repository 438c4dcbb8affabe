//! What does a client see when something goes wrong? A problem document (RFC 9457), on one line.

use std::time::Duration;

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use problem_details::{ProblemDetails, ProblemType};
use serde::Serialize;
use serde_json::{Map, Value};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where it is: `email`, `items[0].sku`.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl FieldError {
    /// This is wrong with this field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Collects what is wrong with the fields, so that a client learns all mistakes at once.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<FieldError>);

impl Mistakes {
    /// The value of a field, if it is valid. Otherwise notes the mistake.
    pub fn note<T>(&mut self, field: &str, parsed: Result<T, impl Into<String>>) -> Option<T> {
        parsed.map_err(|message| self.0.push(FieldError::new(field, message))).ok()
    }

    /// The value made of all fields, if no mistake was noted; otherwise all mistakes.
    pub fn finish<T>(self, parsed: Option<T>) -> Result<T, Vec<FieldError>> {
        parsed.filter(|_| self.0.is_empty()).ok_or(self.0)
    }
}

/// An answer that says what went wrong. The `IntoResponse` of an error type builds it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Members beside those of RFC 9457.
    members: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with only a status and a sentence for the client.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Map::new(), headers: HeaderMap::new() }
    }

    /// Our own fault. The client learns no details.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong on our side")
    }

    /// Says which fields are wrong.
    pub fn errors(self, errors: Vec<FieldError>) -> Self {
        let error = |FieldError { field, message }| {
            Value::from_iter([("field", field), ("message", message)])
        };
        self.member("errors", errors.into_iter().map(error).collect::<Vec<_>>())
    }

    /// Says when to try again. In whole seconds, rounded up: the header has no finer unit, and 0 would ask for
    /// a retry at once.
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.header(RETRY_AFTER, seconds.max(1).into())
    }

    /// One more member of the document. A `type` takes the place of `about:blank`.
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// One more header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut details = ProblemDetails::from_status_code(self.status).with_detail(self.detail);
        // `ProblemDetails` cannot hold every type: its `http::Uri` drops what follows a `#`.
        if !self.members.contains_key("type") {
            details = details.with_type(ProblemType::default());
        }
        let kind = (CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // It consists of JSON values, so writing it as JSON cannot fail.
        let text = serde_json::to_string(&details.with_extensions(self.members));
        (self.status, self.headers, [kind], text.unwrap_or_default() + "\n").into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::json;

    use super::*;

    async fn document(problem: Problem) -> (Response, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = to_bytes(body, 10_000).await.unwrap();
        assert_eq!(bytes.iter().position(|&byte| byte == b'\n'), Some(bytes.len() - 1));
        (
            Response::from_parts(parts, ().into_response().into_body()),
            serde_json::from_slice(&bytes).unwrap(),
        )
    }

    #[tokio::test]
    async fn a_problem_says_what_where_and_when_again() {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "cannot be done")
            .errors(vec![FieldError::new("items[0].sku", "is blank")])
            .retry_after(Duration::from_millis(1_001));
        let (response, document) = document(problem).await;
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(
            document,
            json!({
                "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
                "detail": "cannot be done",
                "errors": [{ "field": "items[0].sku", "message": "is blank" }],
            })
        );
    }

    #[tokio::test]
    async fn a_type_may_have_a_fragment() {
        let kind = "https://example.org/problems#full";
        let (_, document) = document(Problem::internal().member("type", kind)).await;
        assert_eq!(document["type"], kind);
    }

    #[test]
    fn nobody_is_asked_to_try_again_at_once() {
        for (after, header) in [(0, "1"), (1, "1"), (1_000, "1"), (60_000, "60")] {
            let response =
                Problem::internal().retry_after(Duration::from_millis(after)).into_response();
            assert_eq!(response.headers()["retry-after"], header, "{after} ms");
        }
    }
}
