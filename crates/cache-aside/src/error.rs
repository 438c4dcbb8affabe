//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};
use sqlx::error::DatabaseError;

/// Everything that can go wrong behind the edge, which refuses what cannot be read. The text of a variant is what the
/// client may read. "Redis is away" is not among them, because no client hears of that.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 404: no user has this id, no user can have it, or there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 409: somebody else has this e-mail address.
    #[error("this e-mail address is taken")]
    EmailTaken,
    /// 412: the user is not as the client has read it.
    #[error("somebody has changed this user since you read it; read it again")]
    ChangedMeanwhile,
    /// 422: well-formed, but not allowed.
    #[error("some fields are not as they must be")]
    Invalid(Vec<FieldError>),
    /// 428: the client does not say which version it has read.
    #[error("send If-Match with the ETag of the user that you have read, or with *")]
    NoIfMatch,
    /// 503: the database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("the database is away; try again")]
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
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Internal(cause) = &self {
            tracing::error!(error = cause.as_ref(), "answered 500");
        }
        let status = match &self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::ChangedMeanwhile => StatusCode::PRECONDITION_FAILED,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoIfMatch => StatusCode::PRECONDITION_REQUIRED,
            Self::DatabaseAway => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let problem = Problem::new(status, self.to_string());
        match self {
            Self::Invalid(errors) => problem.errors(errors),
            Self::DatabaseAway => problem.retry_after(Duration::from_secs(1)),
            _ => problem,
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().and_then(DatabaseError::constraint) == Some("users_email") {
            Self::EmailTaken
        } else if is_away(&error) {
            // At `debug`, because while the database is away each request logs this.
            tracing::debug!(%error, "the database is away");
            Self::DatabaseAway
        } else {
            Self::internal(error)
        }
    }
}
