//! What can go wrong behind the layers, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{http::StatusCode, response::IntoResponse, response::Response};
use edge::{FieldError, Problem, database::is_away, json::JsonRejection};

/// Everything that can go wrong in a handler. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400, 413, 415 or 422: the body is not what it should be.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// 404: there is no such note, or it is somebody else's.
    #[error("there is nothing here")]
    NotFound,
    /// 503: the database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("the database is away; what was asked may have been done")]
    DatabaseAway,
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = |status| Problem::new(status, self.to_string());
        match &self {
            Self::Body(rejection) => return rejection.clone().into_response(),
            Self::NotFound => problem(StatusCode::NOT_FOUND),
            Self::DatabaseAway => {
                problem(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1))
            }
            Self::Internal(cause) => {
                tracing::error!(error = cause.as_ref(), "answered 500");
                Problem::internal()
            }
        }
        .into_response()
    }
}

impl Error {
    /// 422: this field or parameter cannot be.
    pub fn invalid(field: &str, message: &str) -> Self {
        JsonRejection::Invalid(FieldError::new(field, message)).into()
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) { Self::DatabaseAway } else { Self::Internal(Arc::new(error)) }
    }
}
