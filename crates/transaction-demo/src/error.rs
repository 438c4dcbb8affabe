//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    extract::rejection::QueryRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};

use crate::order::Refusal;

/// Everything that can go wrong behind the edge, which refuses what cannot be read. What it displays is what the
/// client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: the query is none.
    #[error("the query cannot be read: {0}")]
    Malformed(String),
    /// 400: the header `Idempotency-Key` is missing, or cannot be one.
    #[error("the header Idempotency-Key {0}")]
    BadKey(&'static str),
    /// 404: no account and no transfer has this number, or there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 409: there is less in the account than should be taken out of it.
    #[error("the account that pays has not enough money")]
    InsufficientFunds,
    /// 409: an account would hold more than an account can.
    #[error("an account cannot hold that much money")]
    BeyondLimit,
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 422: the key came with another body before.
    #[error("this Idempotency-Key was used for another request")]
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

impl Error {
    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::BadKey(_) => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::InsufficientFunds | Self::BeyondLimit => StatusCode::CONFLICT,
            Self::Invalid(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Contended | Self::DatabaseAway => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Internal(cause) = &self {
            tracing::error!(error = cause.as_ref(), "answered 500");
        }
        let problem = Problem::new(self.status(), self.to_string());
        match self {
            Self::Invalid(errors) => problem.errors(errors),
            Self::Contended | Self::DatabaseAway => problem.retry_after(Duration::from_secs(1)),
            _ => problem,
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

// ANCHOR: from_sqlx
impl From<sqlx::Error> for Error {
    /// SQLSTATEs are those of PostgreSQL's documentation, appendix A.
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(error) => error.code().unwrap_or_default(),
            _ => "".into(),
        };
        match code.as_ref() {
            // Serialization failure; deadlock.
            "40001" | "40P01" => Self::Contended,
            // A number out of range: the vault owes all that a number can hold. Constraints are not named here. Each
            // order is decided under its locks, so a constraint that refuses it has found a mistake of ours.
            "22003" => Self::BeyondLimit,
            _ if is_away(&error) => {
                // Not louder: there would be one for each request as long as it is away.
                tracing::debug!(%error, "the database is away");
                Self::DatabaseAway
            }
            _ => Self::internal(error),
        }
    }
}
// ANCHOR_END: from_sqlx

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let unknown =
            |field| Self::Invalid(vec![FieldError::new(field, "is not the number of an account")]);
        match refusal {
            Refusal::UnknownFrom => unknown("from"),
            Refusal::UnknownTo => unknown("to"),
            Refusal::InsufficientFunds => Self::InsufficientFunds,
            Refusal::BeyondLimit => Self::BeyondLimit,
        }
    }
}

impl From<QueryRejection> for Error {
    fn from(rejection: QueryRejection) -> Self {
        Self::Malformed(rejection.body_text())
    }
}
