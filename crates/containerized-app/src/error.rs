//! What can go wrong, and what is a client told?

use std::{io, time::Duration};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem};

/// Everything that a client may be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 422: a value is missing, or not what it should be.
    #[error("a value is not as it should be")]
    Invalid(Vec<FieldError>),
    /// 503: the process has only begun, is about to end, or misses its backend.
    #[error("not ready: {0}")]
    NotReady(&'static str),
    /// 503: with this work, the process would be above its limit of memory.
    #[error("there is no memory for this now")]
    Full,
    /// 501: the image has no shell, and this call needs one.
    #[error("there is no shell in this image")]
    NoShell,
    /// 500: the system did not start a process. The client learns no more.
    #[error("a process cannot be started")]
    NoProcess(#[source] io::Error),
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let words = self.to_string();
        let problem = match self {
            Self::Invalid(errors) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, words).errors(errors)
            }
            Self::NotReady(_) | Self::Full => Problem::new(StatusCode::SERVICE_UNAVAILABLE, words)
                .retry_after(Duration::from_secs(1)),
            Self::NoShell => Problem::new(StatusCode::NOT_IMPLEMENTED, words),
            Self::NoProcess(error) => {
                tracing::error!(%error, "no process");
                Problem::internal()
            }
        };
        problem.into_response()
    }
}
