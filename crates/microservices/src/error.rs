//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away, json::JsonRejection};

/// On a failure of a service that has asked another one again already, or has decided not to. Its caller must not do the
/// same once more.
pub const RETRIED: HeaderName = HeaderName::from_static("x-retried");

const SOON: Duration = Duration::from_secs(1);

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
    /// 503: another service that is needed for this answer did not do its part.
    #[error("{0} {1}; try again")]
    Upstream(&'static str, Fault),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

/// What another service did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no connection, or it broke.
    #[error("cannot be reached")]
    Away,
    /// It said nothing in the time that it had.
    #[error("does not answer in time")]
    TooSlow,
    /// It failed again and again, so it is not asked for a while.
    #[error("has failed too often and is not asked for a moment")]
    GivenUp,
    /// It said that it cannot.
    #[error("cannot answer")]
    Failing,
    /// It said something that is not in its contract.
    #[error("gave an answer that is not in its contract")]
    Garbage,
}

/// What can go wrong in all modules.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    // ANCHOR: refusals
    /// An `X-Timeout-Ms` that is no whole number, or two.
    pub const BAD_TIMEOUT: Self = Self::Refused(400, "write X-Timeout-Ms in whole milliseconds");
    /// None, two, or a bad `Idempotency-Key`.
    pub const BAD_KEY: Self = Self::Refused(400, "send an Idempotency-Key of 1 to 255 characters");
    /// A query that the call does not have.
    pub const BAD_QUERY: Self = Self::Refused(400, "this call does not take this query");
    /// A question of another service that is not in our contract. That service tells its caller so, and not the customer.
    pub const BAD_QUESTION: Self = Self::Refused(400, "this module has no such call");
    /// Nothing is here.
    pub const NOT_FOUND: Self = Self::Refused(404, "there is nothing here");
    /// The payment is refused.
    pub const DECLINED: Self = Self::Refused(409, "the payment was declined");
    /// The key came with another order before.
    pub const KEY_REUSED: Self = Self::Refused(422, "this Idempotency-Key came with another body");
    /// The client does not wait any more, or will not when we are done.
    pub const TOO_LATE: Self = Self::NotNow("the time for this call is over");
    /// The database does not answer, or not in time. Whether it did what it was asked is unknown.
    pub const DATABASE_AWAY: Self = Self::NotNow("the database does not answer in time");
    // ANCHOR_END: refusals

    /// What another service refused, if it is a refusal that it may give.
    pub fn refused(status: u16) -> Option<Self> {
        let known = [Self::NOT_FOUND, Self::DECLINED, Self::KEY_REUSED];
        known.into_iter().find(|error| matches!(error, Self::Refused(its, _) if *its == status))
    }
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
            Self::NotNow(_) => problem(503).retry_after(SOON),
            Self::Upstream(..) => {
                problem(503).retry_after(SOON).header(RETRIED, HeaderValue::from_static("1"))
            }
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
