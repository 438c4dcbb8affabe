//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc};

use axum::{
    extract::rejection::{JsonDataError, JsonRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use problem_details::{ProblemDetails, ProblemType};
use serde::Serialize;

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: the body is no JSON, or ended too soon; or the query is none.
    #[error("cannot be read: {0}")]
    Malformed(String),
    /// 400: the header `Idempotency-Key` is missing, or cannot be one.
    #[error("the header Idempotency-Key {0}")]
    BadKey(&'static str),
    /// 404: no account and no transfer has this number, or there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 405.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// 408: the client took too long to send its request, or we took too long to answer it.
    #[error("the request took too long")]
    TooSlow,
    /// 409: there is less in the account than should be taken out of it.
    #[error("the account that pays has not enough money")]
    InsufficientFunds,
    /// 409: an account would hold more than an account can.
    #[error("an account cannot hold that much money")]
    BeyondLimit,
    /// 413: the body is longer than we read.
    #[error("the body is too long")]
    TooLarge,
    /// 415: the body does not say that it is JSON.
    #[error("send JSON, with `content-type: application/json`")]
    NotJson,
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 422: the key came with another body before.
    #[error("this Idempotency-Key was used for another transfer")]
    KeyReused,
    /// 503: other transactions were in the way, each time we tried (SQLSTATE 40001 and 40P01).
    #[error("too many want the same accounts; try again")]
    Contended,
    /// 503: the database does not answer, or not in time. Whether it did what it was asked is unknown: the
    /// client asks again with the same key.
    #[error("the database is away; try again with the same key")]
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
            Self::Malformed(_) | Self::BadKey(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::InsufficientFunds | Self::BeyondLimit => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Contended | Self::DatabaseAway => StatusCode::SERVICE_UNAVAILABLE,
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
        let status = self.status();
        let problem = ProblemDetails::from_status_code(status)
            .with_type(ProblemType::default())
            .with_detail(self.to_string());
        let mut response = match self {
            Self::Invalid(errors) => problem.with_extensions(Errors { errors }).into_response(),
            _ => problem.into_response(),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // In seconds: the header has no finer unit, and 0 would ask for a retry at once.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
// ANCHOR_END: error_response

// ANCHOR: from_sqlx
impl From<sqlx::Error> for Error {
    /// SQLSTATEs are those of PostgreSQL's documentation, appendix A.
    fn from(error: sqlx::Error) -> Self {
        let (code, constraint) = match &error {
            sqlx::Error::Database(error) => (error.code().unwrap_or_default(), error.constraint()),
            sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => ("08006".into(), None),
            _ => ("".into(), None),
        };
        match (code.as_ref(), constraint) {
            // Serialization failure; deadlock.
            ("40001" | "40P01", _) => Self::Contended,
            ("23514", Some("accounts_no_overdraft")) => Self::InsufficientFunds,
            ("23514", Some("accounts_limit")) | ("22003", _) => Self::BeyondLimit,
            // 08 connection exception, 25P03 idle in transaction for too long, 53 insufficient resources,
            // 57 operator intervention (shutting down, starting up, statement timeout).
            ("25P03", _) => Self::away(&error),
            (code, _) if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                Self::away(&error)
            }
            _ => Self::internal(error),
        }
    }
}
// ANCHOR_END: from_sqlx

impl Error {
    /// Not a louder log: there would be one for each request as long as it is away.
    fn away(error: &sqlx::Error) -> Self {
        tracing::debug!(%error, "the database is away");
        Self::DatabaseAway
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

impl From<QueryRejection> for Error {
    fn from(rejection: QueryRejection) -> Self {
        Self::Malformed(cause(&rejection))
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
