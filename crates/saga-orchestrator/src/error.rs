//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};
use sqlx::error::DatabaseError;
use uuid::Uuid;

/// Everything that can go wrong behind the edge, which refuses what cannot be read. What it displays is what the
/// client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: a write without a usable `Idempotency-Key`.
    #[error("send an `Idempotency-Key` of 1 to 128 printable characters")]
    NoKey,
    /// 404: there is no such order, sku or path.
    #[error("there is nothing here")]
    NotFound,
    /// 409: a participant will not do this for the order, now or later. The saga compensates.
    #[error("{reason}")]
    Refused {
        /// Whose step it was: who asked checks it.
        order_id: Uuid,
        /// Why.
        reason: String,
    },
    /// 409: the order is not in a state for this.
    #[error("{0}")]
    Conflict(String),
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(FieldError),
    /// 422: the `Idempotency-Key` belongs to another request.
    #[error("this `Idempotency-Key` was used for another request")]
    KeyReused,
    /// 503: a database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("a database is away; try again")]
    DatabaseAway,
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

impl Error {
    /// One field is wrong.
    pub fn invalid(field: &str, message: &str) -> Self {
        Self::Invalid(FieldError::new(field, message))
    }

    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let detail = self.to_string();
        let problem = |status| Problem::new(status, detail);
        match self {
            Self::NoKey => problem(StatusCode::BAD_REQUEST),
            Self::NotFound => problem(StatusCode::NOT_FOUND),
            Self::Refused { order_id, .. } => {
                problem(StatusCode::CONFLICT).member("order_id", order_id.to_string())
            }
            Self::Conflict(_) => problem(StatusCode::CONFLICT),
            Self::Invalid(error) => problem(StatusCode::UNPROCESSABLE_ENTITY).errors(vec![error]),
            Self::KeyReused => problem(StatusCode::UNPROCESSABLE_ENTITY),
            Self::DatabaseAway => {
                problem(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1))
            }
            Self::Internal(cause) => {
                tracing::error!(error = cause.as_ref(), "answered 500");
                problem(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        // 40: rolled back, such as by a deadlock in which PostgreSQL chose us. The next try may succeed.
        let code = error.as_database_error().and_then(DatabaseError::code);
        if is_away(&error) || code.is_some_and(|code| code.starts_with("40")) {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "a database is away");
            Self::DatabaseAway
        } else {
            Self::internal(error)
        }
    }
}
