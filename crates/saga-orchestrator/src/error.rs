//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc};

use axum::{
    extract::rejection::{JsonDataError, JsonRejection},
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use problem_details::{ProblemDetails, ProblemType};
use serde::Serialize;
use uuid::Uuid;

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: the body is no JSON, or ended too soon.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    /// 400: a write without a usable `Idempotency-Key`.
    #[error("send an `Idempotency-Key` of 1 to 128 printable characters")]
    NoKey,
    /// 404: there is no such order, sku or path.
    #[error("there is nothing here")]
    NotFound,
    /// 405.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// 408: the client took too long to send its request, or we took too long to answer it.
    #[error("the request took too long")]
    TooSlow,
    /// 409: a participant will not do this for the order, now or later. The saga compensates.
    #[error("{reason}")]
    Refused {
        /// Whose step it was: who asked checks it.
        order_id: Uuid,
        /// Why.
        reason: String,
    },
    /// 409: the order is not in a state for this.
    #[error("{0}")]
    Conflict(String),
    /// 413: the body is longer than we read.
    #[error("the body is too long")]
    TooLarge,
    /// 415: the body does not say that it is JSON.
    #[error("send JSON, with `content-type: application/json`")]
    NotJson,
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 422: the `Idempotency-Key` belongs to another request.
    #[error("this `Idempotency-Key` was used for another request")]
    KeyReused,
    /// 503: a database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("a database is away; try again")]
    DatabaseAway,
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

/// What is wrong with one field.
#[derive(Clone, Debug, Serialize)]
pub struct FieldError {
    /// Its name.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Error {
    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::NoKey => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Refused { .. } | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::DatabaseAway => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
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
        #[derive(Serialize)]
        struct OfOrder {
            order_id: Uuid,
        }
        if let Self::Internal(cause) = &self {
            tracing::error!(error = cause.as_ref(), "answered 500");
        }
        let problem = ProblemDetails::from_status_code(self.status())
            .with_type(ProblemType::default())
            .with_detail(self.to_string());
        match self {
            Self::Invalid(errors) => problem.with_extensions(Errors { errors }).into_response(),
            Self::Refused { order_id, .. } => {
                problem.with_extensions(OfOrder { order_id }).into_response()
            }
            // In seconds: the header has no finer unit, and 0 would ask for a retry at once.
            Self::DatabaseAway => {
                ([(RETRY_AFTER, HeaderValue::from_static("1"))], problem).into_response()
            }
            _ => problem.into_response(),
        }
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let is_away = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // 08 connection exception, 40 rolled back (a deadlock: PostgreSQL chose us), 53 insufficient resources,
            // 57 operator intervention (shutting down, starting up, statement timeout): PostgreSQL's documentation,
            // appendix A.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| {
                ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
            }),
            _ => false,
        };
        if is_away {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "a database is away");
            Self::DatabaseAway
        } else {
            Self::internal(error)
        }
    }
}

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
