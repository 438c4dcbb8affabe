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
    /// 409: only a dead job can be queued again.
    #[error("this notification is not dead")]
    NotDead,
    /// 409: a job has one user. This notification is not sent.
    #[error("this job_id is another user's; nothing was accepted")]
    OtherUser,
    /// 422: a field has a value that we do not take.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 426: the stream was asked for in plain HTTP.
    #[error("this is a WebSocket")]
    NoUpgrade,
    /// 503: the database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("the database is away; try again")]
    DatabaseAway,
    /// 503: the broker does not answer, or not in time, or lacks a queue.
    #[error("the broker is away; nothing was accepted; try again")]
    BrokerAway,
    /// 503: the queue is full, or the broker has raised an alarm over its memory or its disk.
    #[error("the broker has no room; nothing was accepted; try again")]
    BrokerFull,
    /// 503: Redis does not answer, or not in time.
    #[error("the ticket office is away; try again")]
    RedisAway,
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

impl Error {
    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    /// A server behind us is away or full. The same call may succeed later.
    pub fn is_passing(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoKey | Self::NoTicket => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotDead | Self::OtherUser => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoUpgrade => StatusCode::UPGRADE_REQUIRED,
            Self::DatabaseAway | Self::BrokerAway | Self::BrokerFull | Self::RedisAway => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the client has to show, or to ask for.
    fn wanted(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NoKey => &[("www-authenticate", "Bearer")],
            Self::NoTicket => &[("www-authenticate", "Ticket")],
            // RFC 6455, section 4.4: also when the client named another version.
            Self::NoUpgrade => &[("upgrade", "websocket"), ("sec-websocket-version", "13")],
            _ => &[],
        }
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Internal(cause) = &self {
            tracing::error!(error = cause.as_ref(), "answered 500");
        }
        let mut problem = Problem::new(self.status(), self.to_string());
        if self.is_passing() {
            problem = problem.retry_after(Duration::from_secs(1));
        }
        for (name, value) in self.wanted() {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
            problem = problem.header(name, value);
        }
        match self {
            Self::Invalid(errors) => problem.errors(errors).into_response(),
            _ => problem.into_response(),
        }
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "the database is away");
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
