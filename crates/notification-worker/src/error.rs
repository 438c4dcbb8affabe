//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};

/// Everything that can go wrong behind the edge, which refuses what cannot be read. What it displays is what the
/// client may read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 400: the path or the query cannot be read.
    #[error("the request cannot be read: {0}")]
    Malformed(String),
    /// 401: the stream has no ticket, or one that is used up, expired, or another user's.
    #[error("this stream needs a ticket of its user that has not been used")]
    NoTicket,
    /// 404: there is no such job, or no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 409: a `job_id` has one user.
    #[error("this job_id is another user's; nothing was accepted")]
    AnotherUsers,
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
    Internal(Box<dyn StdError + Send + Sync>),
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = |status| Problem::new(status, self.to_string());
        let is = HeaderValue::from_static;
        match &self {
            Self::Malformed(_) => problem(StatusCode::BAD_REQUEST),
            Self::NoTicket => {
                problem(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, is("Ticket"))
            }
            Self::NotFound => problem(StatusCode::NOT_FOUND),
            Self::AnotherUsers => problem(StatusCode::CONFLICT),
            Self::Invalid(it) => problem(StatusCode::UNPROCESSABLE_ENTITY).errors(vec![it.clone()]),
            // RFC 6455, section 4.4: also when the client named another version.
            Self::NoUpgrade => problem(StatusCode::UPGRADE_REQUIRED)
                .header(header::UPGRADE, is("websocket"))
                .header(header::SEC_WEBSOCKET_VERSION, is("13")),
            Self::Away(_) => {
                problem(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1))
            }
            Self::Internal(cause) => {
                tracing::error!(cause, "answered 500");
                Problem::internal()
            }
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if !is_away(&error) {
            return Self::Internal(error.into());
        }
        // Not louder: there would be one for each request as long as it is away.
        tracing::debug!(%error, "the database is away");
        // Whether it did what it was asked is unknown.
        Self::Away("the database is away")
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
