//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc};

use axum::{
    extract::rejection::{JsonDataError, JsonRejection},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use problem_details::{ProblemDetails, ProblemType};
use serde::Serialize;

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: the body is no JSON, or the query no query.
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    /// 401: the call has no key, or a wrong one.
    #[error("send the key: `authorization: Bearer KEY`")]
    NoKey,
    /// 401: the stream has no ticket, or one that is used up, expired, or another user's.
    #[error("this stream needs a ticket of its user that has not been used")]
    NoTicket,
    /// 404: there is no such job, or no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 405.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// 408: the client took too long to send its request, or we took too long to answer it.
    #[error("the request took too long")]
    TooSlow,
    /// 409: only what is dead can be queued again.
    #[error("this notification is not dead")]
    NotDead,
    /// 413: the body is longer than we read.
    #[error("the body is too long")]
    TooLarge,
    /// 415: the body does not say that it is JSON.
    #[error("send JSON, with `content-type: application/json`")]
    NotJson,
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 426: the stream was asked for in plain HTTP.
    #[error("this is a WebSocket")]
    NoUpgrade,
    /// 503: the database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("the database is away; try again")]
    DatabaseAway,
    /// 503: the broker does not answer, or not in time.
    #[error("the broker is away; nothing was accepted; try again")]
    BrokerAway,
    /// 503: the queue has no room.
    #[error("the queue is full; nothing was accepted; try again")]
    BrokerFull,
    /// 503: Redis does not answer, or not in time.
    #[error("the ticket office is away; try again")]
    RedisAway,
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

    /// It did not work this time: a server behind us is away, or full.
    pub fn is_passing(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    /// A field that is not as it should be.
    pub fn invalid(field: &str, message: &str) -> Self {
        Self::Invalid(vec![FieldError { field: field.to_owned(), message: message.to_owned() }])
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoKey | Self::NoTicket => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::NotDead => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoUpgrade => StatusCode::UPGRADE_REQUIRED,
            Self::DatabaseAway | Self::BrokerAway | Self::BrokerFull | Self::RedisAway => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The header that tells the client what to do, where there is one.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            error if error.is_passing() => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::NoKey => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::NoTicket => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Ticket"))),
            Self::NoUpgrade => Some((UPGRADE, HeaderValue::from_static("websocket"))),
            _ => None,
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
        let header = self.header();
        let mut response = match self {
            Self::Invalid(errors) => problem.with_extensions(Errors { errors }).into_response(),
            _ => problem.into_response(),
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
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
            // 08 connection exception, 53 insufficient resources, 57 operator intervention (shutting
            // down, starting up, statement timeout): PostgreSQL's documentation, appendix A.
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class))),
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

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        tracing::debug!(%error, "the broker is away");
        Self::BrokerAway
    }
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        tracing::debug!(%error, "Redis is away");
        Self::RedisAway
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
