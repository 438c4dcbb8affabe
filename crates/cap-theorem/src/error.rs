//! What can go wrong, and what does the client see of it?

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, json::JsonRejection};

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400, 413, 415 or 422: the body is not what it should be.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(FieldError),
    /// 404: none of the nodes that answered has a value.
    #[error("this key has no value")]
    NotFound,
    /// 409: so many concurrent values that the client has to read them first.
    #[error(
        "this key has too many concurrent values: read it, and send the context with the next write"
    )]
    Crowded,
    /// 503: fewer nodes answered than the client asked for. A write may or may not take effect, now or later.
    #[error(
        "{got} of the {needed} nodes that this needs have answered; a write may take effect all the same"
    )]
    TooFew {
        /// How many answered, this one included.
        got: usize,
        /// How many the level asks for.
        needed: usize,
    },
    /// 503: the disk is full or broken. The write has no effect, unless the log could not be cut back and the node starts
    /// again.
    #[error("this node cannot write to its disk")]
    Disk(Arc<std::io::Error>),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(String),
}

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(FieldError::new(field, message))
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let words = self.to_string();
        let problem = |status: StatusCode| Problem::new(status, words.clone());
        let again = || problem(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1));
        match &self {
            Self::Body(rejection) => return rejection.clone().into_response(),
            Self::Invalid(error) => {
                problem(StatusCode::UNPROCESSABLE_ENTITY).errors(vec![error.clone()])
            }
            Self::NotFound => problem(StatusCode::NOT_FOUND),
            Self::Crowded => problem(StatusCode::CONFLICT),
            Self::TooFew { got, needed } => {
                again().member("answered", *got).member("needed", *needed)
            }
            Self::Disk(error) => {
                tracing::error!(%error, "the log cannot be written");
                again()
            }
            Self::Internal(cause) => {
                tracing::error!(cause, "answered 500");
                problem(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
        .into_response()
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(Arc::new(error))
    }
}
