//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away, json::JsonRejection, password::Refusal};
use sqlx::error::DatabaseError;

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400, 413, 415 or 422: the body is not what it should be.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// A refusal, with its status and words: one of the constants below.
    #[error("{1}")]
    Refused(u16, &'static str),
    /// 429 or 503: it may go well after this time.
    #[error("{1}; try again later")]
    NotNow(u16, &'static str, Duration),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    // ANCHOR: refusals
    /// No token, or one that is not to be believed. Why not is nobody's business.
    pub const UNAUTHENTICATED: Self = Self::Refused(401, "send a valid token");
    /// A login that failed: the same words for an unknown address and for a wrong password.
    pub const LOGIN_FAILED: Self = Self::Refused(401, "the email or the password is wrong");
    /// The role may not do this.
    pub const FORBIDDEN: Self = Self::Refused(403, "your role does not allow this");
    /// Nothing is here; or it is another customer's, which is the same to a stranger.
    pub const NOT_FOUND: Self = Self::Refused(404, "there is nothing here");
    /// A file whose bytes are none of the types that we take.
    pub const FILE_TYPE: Self = Self::Refused(415, "send a PDF, a PNG or a JPEG");
    // ANCHOR_END: refusals

    /// 422: this field, or this parameter, is wrong.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        JsonRejection::Invalid(FieldError::new(field, message)).into()
    }

    /// 503: try again in a second.
    pub const fn busy(words: &'static str) -> Self {
        Self::NotNow(503, words, Duration::from_secs(1))
    }

    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Problem::new(status, self.to_string())
        };
        match &self {
            Self::Body(rejection) => return rejection.clone().into_response(),
            Self::Refused(401, _) => {
                problem(401).header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            }
            Self::Refused(status, _) => problem(*status),
            Self::NotNow(status, _, after) => problem(*status).retry_after(*after),
            Self::Internal(cause) => {
                tracing::error!(error = cause.as_ref(), "answered 500");
                problem(500)
            }
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy => Self::busy("too many logins at once"),
            Refusal::Internal(_) => Self::internal(refusal),
        }
    }
}

impl From<sqlx::Error> for Error {
    /// A constraint that refuses a statement has a name, and the name says what the client did.
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(DatabaseError::constraint) {
            Some("invoices_corrects") => Self::invalid("corrects", "is no invoice of yours"),
            Some("attachments_invoice") => Self::NOT_FOUND,
            _ if is_away(&error) => Self::busy("the database is away"),
            _ => Self::Internal(Arc::new(error)),
        }
    }
}
