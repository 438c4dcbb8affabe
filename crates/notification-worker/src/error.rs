//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};

/// Everything that can go wrong behind the edge, which refuses what cannot be read. What it displays is what the
/// client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: the path or the query cannot be read.
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    /// 401: the call has no key, a wrong one, or two.
    #[error("send the key once: `authorization: Bearer KEY`")]
    NoKey,
    /// 401: the stream has no ticket, or one that is used up, expired, or another user's.
    #[error("this stream needs a ticket of its user that has not been used")]
    NoTicket,
    /// 404: there is no such job, or no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 409: only a dead job can be queued again; a `job_id` has one user.
    #[error("{0}")]
    Conflict(&'static str),
    /// 422: this field has a value that we do not take.
    #[error("this cannot be done as it was asked for")]
    Invalid(FieldError),
    /// 426: the stream was asked for in plain HTTP.
    #[error("this is a WebSocket")]
    NoUpgrade,
    /// 503: a server behind us does not answer, or not in time, or is full. The same call may succeed later.
    #[error("{0}; try again")]
    Away(&'static str),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

impl Error {
    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    /// The status, and headers that say what the client has to show, or to ask for.
    fn says(&self) -> (StatusCode, &'static [(&'static str, &'static str)]) {
        match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, &[]),
            Self::NoKey => (StatusCode::UNAUTHORIZED, &[("www-authenticate", "Bearer")]),
            Self::NoTicket => (StatusCode::UNAUTHORIZED, &[("www-authenticate", "Ticket")]),
            Self::NotFound => (StatusCode::NOT_FOUND, &[]),
            Self::Conflict(_) => (StatusCode::CONFLICT, &[]),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, &[]),
            // RFC 6455, section 4.4: also when the client named another version.
            Self::NoUpgrade => (
                StatusCode::UPGRADE_REQUIRED,
                &[("upgrade", "websocket"), ("sec-websocket-version", "13")],
            ),
            Self::Away(_) => (StatusCode::SERVICE_UNAVAILABLE, &[]),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, &[]),
        }
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, headers) = self.says();
        let mut problem = Problem::new(status, self.to_string());
        for (name, value) in headers {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
            problem = problem.header(name, value);
        }
        match self {
            Self::Internal(cause) => tracing::error!(error = cause.as_ref(), "answered 500"),
            Self::Away(_) => problem = problem.retry_after(Duration::from_secs(1)),
            Self::Invalid(field) => problem = problem.errors(vec![field]),
            _ => {}
        }
        problem.into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "the database is away");
            // Whether it did what it was asked is unknown.
            Self::Away("the database is away")
        } else {
            Self::internal(error)
        }
    }
}

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        tracing::debug!(%error, "the broker is away");
        Self::Away("the broker is away")
    }
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        tracing::debug!(%error, "Redis is away");
        Self::Away("the ticket office is away")
    }
}
