//! What can go wrong, and what does the client see of it?

use std::error::Error as StdError;

use axum::{
    extract::rejection::{JsonDataError, JsonRejection},
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use problem_details::ProblemDetails;
use serde::Serialize;

use crate::{decision::Decision, quota::Policy};

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 400: the body is no JSON, or ended too soon.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    /// 404: there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 405.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// 408: the client took too long to send its request, or we took too long to answer it.
    #[error("the request took too long")]
    TooSlow,
    /// 413: the body is longer than we read.
    #[error("the body is too long")]
    TooLarge,
    /// 415: the body does not say that it is JSON.
    #[error("send JSON, with `content-type: application/json`")]
    NotJson,
    /// 422: well-formed, but not something that we do.
    #[error("the request cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 429: a policy has no room for the request. `Retry-After` is added where the other headers are.
    #[error("the quota is used up; wait as long as Retry-After says")]
    TooManyRequests(Violated),
    /// 503: the store does not answer, and without it nobody gets in.
    #[error("the limiter's store is away; try again")]
    StoreAway,
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal,
}

/// What is wrong with one field.
#[derive(Clone, Debug, Serialize)]
pub struct FieldError {
    /// Its name.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// The problem type of draft-ietf-httpapi-ratelimit-headers-10, with the names of the policies that had no room.
///
/// The type is written here, since `http::Uri`, which `problem_details` would have, drops the part behind the `#`.
#[derive(Clone, Debug, Serialize)]
pub struct Violated {
    #[serde(rename = "type")]
    problem_type: &'static str,
    #[serde(rename = "violated-policies")]
    policies: Vec<String>,
}

const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

impl Error {
    /// One field is not as it should be.
    pub fn invalid(field: &str, message: &str) -> Self {
        Self::Invalid(vec![FieldError { field: field.to_owned(), message: message.to_owned() }])
    }

    /// The policies have refused.
    pub fn over(policies: &[Policy], decision: &Decision) -> Self {
        let outcomes = policies.iter().zip(decision.outcomes());
        let violated = outcomes.filter(|(_, outcome)| outcome.wait > 0);
        let policies = violated.map(|(policy, _)| policy.name().to_owned()).collect();
        Self::TooManyRequests(Violated { problem_type: QUOTA_EXCEEDED, policies })
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::StoreAway => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Errors {
            errors: Vec<FieldError>,
        }
        let problem = ProblemDetails::from_status_code(self.status()).with_detail(self.to_string());
        match self {
            Self::Invalid(errors) => problem.with_extensions(Errors { errors }).into_response(),
            Self::TooManyRequests(violated) => problem.with_extensions(violated).into_response(),
            Self::StoreAway => ([(RETRY_AFTER, "1")], problem).into_response(),
            _ => problem.into_response(),
        }
    }
}
// ANCHOR_END: error_response

impl From<JsonRejection> for Error {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::JsonDataError(error) => Self::Invalid(vec![field_error(&error)]),
            JsonRejection::MissingJsonContentType(_) => Self::NotJson,
            JsonRejection::JsonSyntaxError(error) => Self::Malformed(cause(&error)),
            other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            other => Self::Malformed(cause(&other)),
        }
    }
}

/// axum reads JSON with `serde_path_to_error`, which knows the field that was wrong, and wraps it more than once.
fn field_error(error: &JsonDataError) -> FieldError {
    type AtPath = serde_path_to_error::Error<serde_json::Error>;
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    match causes.find_map(|cause| cause.downcast_ref::<AtPath>()) {
        Some(error) => {
            FieldError { field: error.path().to_string(), message: error.inner().to_string() }
        }
        None => FieldError { field: ".".to_owned(), message: cause(error) },
    }
}

fn cause(error: &dyn StdError) -> String {
    error.source().unwrap_or(error).to_string()
}
