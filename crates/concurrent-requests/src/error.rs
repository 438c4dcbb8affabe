//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away, json::JsonRejection};

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400, 413, 415 or 422: the body is not what it should be.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// A refusal, with its status and words: one of the constants below.
    #[error("{1}")]
    Refused(u16, &'static str),
    /// 503: it may go well the next time.
    #[error("{0}; try again")]
    NotNow(&'static str),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    // ANCHOR: refusals
    /// An `X-Request-Deadline` that is no time, or two.
    pub const BAD_DEADLINE: Self = Self::Refused(400, "write X-Request-Deadline in RFC 3339");
    /// None, two, or a bad `Idempotency-Key`.
    pub const BAD_KEY: Self = Self::Refused(400, "send an Idempotency-Key of 1 to 255 characters");
    /// Nothing is here, or not any more.
    pub const NOT_FOUND: Self = Self::Refused(404, "there is nothing here");
    /// Less is left than was ordered.
    pub const SOLD_OUT: Self = Self::Refused(409, "sold out");
    /// The key came with another order before.
    pub const KEY_REUSED: Self = Self::Refused(422, "this Idempotency-Key came with another body");
    /// The client does not wait any more, or will not when we are done.
    pub const TOO_LATE: Self = Self::NotNow("the deadline has passed, or is too near");
    /// As many requests are at work and wait as may.
    pub const BUSY: Self = Self::NotNow("too many requests are under way");
    /// As many reports are being made as may be.
    pub const REPORTS_BUSY: Self =
        Self::NotNow("too many reports are being made: POST makes a job");
    /// The queue of jobs is full.
    pub const JOBS_FULL: Self = Self::NotNow("too many jobs wait");
    /// The database does not answer, or not in time. Whether it did what it was asked is unknown.
    pub const DATABASE_AWAY: Self = Self::NotNow("the database does not answer in time");
    // ANCHOR_END: refusals
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Problem::new(status, self.to_string())
        };
        match &self {
            Self::Body(rejection) => return rejection.clone().into_response(),
            Self::Invalid(errors) => problem(422).errors(errors.clone()),
            Self::Refused(status, _) => problem(*status),
            Self::NotNow(_) => problem(503).retry_after(Duration::from_secs(1)),
            Self::Internal(cause) => {
                tracing::error!(error = cause.as_ref(), "answered 500");
                problem(500)
            }
        }
        .into_response()
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) { Self::DATABASE_AWAY } else { Self::Internal(Arc::new(error)) }
    }
}
