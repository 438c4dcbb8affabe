//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc};

use axum::{
    extract::rejection::{JsonDataError, JsonRejection},
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use problem_details::{ProblemDetails, ProblemType};
use serde::Serialize;

/// Everything that can go wrong. What it displays is what the client may read. That Redis is away is not among
/// it: no client ever hears of that.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: the body is no JSON, or ended too soon.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    /// 404: nobody has this id, or nobody can have it, or there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 405.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// 408: the client took too long to send its request, or we took too long to answer it.
    #[error("the request took too long")]
    TooSlow,
    /// 409: somebody else has this e-mail address.
    #[error("this e-mail address is taken")]
    EmailTaken,
    /// 413: the body is longer than we read.
    #[error("the body is too long")]
    TooLarge,
    /// 415: the body does not say that it is JSON.
    #[error("send JSON, with `content-type: application/json`")]
    NotJson,
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 503: the database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("the database is away; try again")]
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

    /// One field is wrong.
    pub fn field(field: &str, message: &str) -> Self {
        Self::Invalid(vec![FieldError { field: field.to_owned(), message: message.to_owned() }])
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
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
        if let Self::Internal(cause) = &self {
            tracing::error!(error = cause.as_ref(), "answered 500");
        }
        let problem = ProblemDetails::from_status_code(self.status())
            .with_type(ProblemType::default())
            .with_detail(self.to_string());
        let is_away = matches!(self, Self::DatabaseAway);
        let mut response = match self {
            Self::Invalid(errors) => problem.with_extensions(Errors { errors }).into_response(),
            _ => problem.into_response(),
        };
        if is_away {
            // In seconds: the header has no finer unit, and 0 would ask for a retry at once.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
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
            sqlx::Error::Database(error) if error.constraint() == Some("users_email") => {
                return Self::EmailTaken;
            }
            // 08 connection exception, 53 insufficient resources, 57 operator intervention (shutting
            // down, starting up, statement timeout): PostgreSQL's documentation, appendix A.
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class))),
            _ => false,
        };
        if is_away {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "the database is away");
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
