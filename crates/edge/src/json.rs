//! How does a body become a value, and what does a client get for a body that cannot? And how is an answer written?
//!
//! [`Json`] is used like axum's. It refuses more: an array in place of an object, and a duplicate key. It tells the
//! client more: which field is missing or has a wrong type. Its answers end with a newline, so that the prompt after
//! `curl` is on a line of its own.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    problem::{FieldError, Problem},
    strict::{self, Fault},
};

/// The JSON body of a request or of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonRejection {
    /// 400: it is not JSON, or is incomplete; or it has an array in place of an object, or a duplicate key.
    #[error("the body cannot be read: {0}")]
    Malformed(String),
    /// 413: it is longer than the limit.
    #[error("the body is too long")]
    TooLarge,
    /// 415: its content type is not JSON.
    #[error("send JSON, with `content-type: application/json`")]
    NotJson,
    /// 422: a field is missing, unknown, or of a wrong type.
    #[error("a field of the body is not as it should be")]
    Invalid(FieldError),
}

impl IntoResponse for JsonRejection {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let problem = Problem::new(status, self.to_string());
        match self {
            Self::Invalid(error) => problem.errors(vec![error]),
            _ => problem,
        }
        .into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = JsonRejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, JsonRejection> {
        if !says_json(request.headers()) {
            return Err(JsonRejection::NotJson);
        }
        parse(&Bytes::from_request(request, state).await?).map(Self)
    }
}

impl From<BytesRejection> for JsonRejection {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            _ => Self::Malformed("it ended too soon".to_owned()),
        }
    }
}

/// Parses the value from these bytes.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, JsonRejection> {
    strict::from_slice(body).map_err(|fault| match fault {
        Fault::Malformed(message) => JsonRejection::Malformed(message),
        Fault::Field { field, message } => JsonRejection::Invalid(FieldError { field, message }),
    })
}

/// `application/json`, or another type whose name ends with `+json` (RFC 6839).
fn says_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.strip_prefix("application/").is_some_and(|it| it == "json" || it.ends_with("+json"))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let kind = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match line(&self.0) {
            Ok(line) => ([kind], line).into_response(),
            // A map whose keys are not strings, or a hand-written `Serialize` that fails.
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Problem::internal().into_response()
            }
        }
    }
}

/// The value on one line.
fn line(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Greeting {
        #[expect(dead_code, reason = "only read")]
        name: String,
    }

    async fn read(kind: Option<&str>, body: &str) -> Result<(), JsonRejection> {
        let mut request = Request::post("/");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Json::<Greeting>::from_request(request, &()).await.map(drop)
    }

    #[tokio::test]
    async fn a_body_has_to_say_that_it_is_json() {
        let body = r#"{"name":"Ada"}"#;
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
            assert_eq!(read(Some(kind), body).await, Ok(()), "{kind}");
        }
        for kind in ["text/plain", "text/json", "application/jsonp", "application/", "json", ""] {
            assert_eq!(read(Some(kind), body).await, Err(JsonRejection::NotJson), "{kind}");
        }
        assert_eq!(read(None, body).await, Err(JsonRejection::NotJson));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_not_read() {
        let long = format!(r#"{{"name":"{}"}}"#, "a".repeat(3_000_000));
        let read = read(Some("application/json"), &long).await;
        assert_eq!(read, Err(JsonRejection::TooLarge));
    }

    #[tokio::test]
    async fn each_rejection_has_its_status() {
        for (rejection, status) in [
            (JsonRejection::Malformed(String::new()), 400),
            (JsonRejection::TooLarge, 413),
            (JsonRejection::NotJson, 415),
            (JsonRejection::Invalid(FieldError::new("a", "b")), 422),
        ] {
            assert_eq!(rejection.into_response().status(), status);
        }
    }

    #[tokio::test]
    async fn an_answer_is_a_line() {
        let response = Json(json!({ "a": 1 })).into_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "{\"a\":1}\n");
    }
}
