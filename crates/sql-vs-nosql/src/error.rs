//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away};
use redis::RedisError;
use sqlx::error::DatabaseError;

/// Everything that can go wrong behind the edge. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 422: well-formed, but not something that we keep.
    #[error("some fields are not as they must be")]
    Invalid(Vec<FieldError>),
    /// A refusal, with its status and words: one of the constants below.
    #[error("{1}")]
    Refused(u16, &'static str),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    // ANCHOR: refusals
    /// Nothing is here, or not any more.
    pub const NOT_FOUND: Self = Self::Refused(404, "there is nothing here");
    /// The customer cannot pay.
    pub const NO_MONEY: Self = Self::Refused(409, "the balance is too small");
    /// There are not enough of a product.
    pub const OUT_OF_STOCK: Self = Self::Refused(409, "there are not enough of a product");
    /// A customer who has ordered cannot be deleted.
    pub const HAS_ORDERS: Self = Self::Refused(409, "there are orders of this customer");
    /// An amount would become larger than JSON's readers can count.
    pub const TOO_MUCH: Self = Self::Refused(409, "this would be more than can be counted");
    /// A document is not as this program reads it: a program of another version wrote it.
    pub const UNREADABLE: Self = Self::Refused(500, "what is kept here is not as we read it");
    /// What this store cannot promise.
    pub const NO_SNAPSHOT: Self =
        Self::Refused(501, "this store reads the orders in pieces, while others are written");
    /// The store does not answer, or not in time. Whether it did what it was asked is unknown.
    pub const AWAY: Self = Self::Refused(503, "the store is away; try again");
    // ANCHOR_END: refusals

    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Invalid(_) => 422,
            Self::Refused(status, _) => *status,
            Self::Internal(cause) => {
                tracing::error!(error = cause.as_ref(), "answered 500");
                500
            }
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Problem::new(status, self.to_string());
        match self {
            Self::Invalid(errors) => problem.errors(errors),
            Self::Refused(503, _) => problem.retry_after(Duration::from_secs(1)),
            _ => problem,
        }
        .into_response()
    }
}

impl From<sqlx::Error> for Error {
    /// A constraint that refuses a statement has a name, and the name says what the client did.
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(DatabaseError::constraint) {
            Some("balance" | "stock") => Self::TOO_MUCH,
            _ if is_away(&error) => Self::AWAY,
            _ => Self::Internal(Arc::new(error)),
        }
    }
}

impl From<RedisError> for Error {
    /// The connection is lost, or the server cannot serve for now. All else is our own fault, like a key of another type.
    fn from(error: RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        let waits = ["LOADING", "READONLY", "BUSY", "OOM", "MISCONF"].contains(&code);
        if waits || error.is_io_error() { Self::AWAY } else { Self::Internal(Arc::new(error)) }
    }
}

impl From<serde_json::Error> for Error {
    /// What is kept is JSON; but another program may have written it.
    fn from(_: serde_json::Error) -> Self {
        Self::UNREADABLE
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use redis::{ErrorKind, make_extension_error};

    use super::*;

    #[test]
    fn only_a_store_that_cannot_serve_is_away() {
        let is_away = |error: RedisError| matches!(Error::from(error), Error::Refused(503, _));
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut] {
            assert!(is_away(io::Error::from(kind).into()), "{kind}");
        }
        for (code, expected) in [("OOM", true), ("BUSY", true), ("WRONGTYPE", false)] {
            assert_eq!(is_away(make_extension_error(code.to_owned(), None)), expected, "{code}");
        }
        assert!(!is_away((ErrorKind::UnexpectedReturnType, "not a number").into()));
        assert!(!is_away((ErrorKind::Parse, "not RESP").into()));
    }
}
