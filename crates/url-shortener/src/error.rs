//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};

/// Everything that can go wrong after the request was read. Its text goes to the client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 401: the call needs the link's edit token.
    #[error("send the edit token that the link was created with, as `Authorization: Bearer …`")]
    NoToken,
    /// 403: this is another link's token, or the link has none, because several clients share it.
    #[error("this token cannot change this link")]
    WrongToken,
    /// 404: no link has this code, no link can have it, or there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 409: somebody else has this alias.
    #[error("this alias is taken")]
    AliasTaken,
    /// 410: the link has expired.
    #[error("this link has expired")]
    Gone,
    /// 422: well-formed, but not allowed.
    #[error("a field is not as it should be")]
    Invalid(Vec<FieldError>),
    /// 429: the client makes links too fast, and may try again after this time.
    #[error("too many links at once")]
    TooMany(Duration),
    /// 503: a database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("a database is away; try again")]
    DatabaseAway,
    /// 503: all codes that we tried were taken.
    #[error("no free code was found; try again")]
    NoFreeCode,
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
        let text = self.to_string();
        let problem = |status| Problem::new(status, text);
        match self {
            // RFC 9110, section 15.5.2: it names the scheme.
            Self::NoToken => problem(StatusCode::UNAUTHORIZED)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::WrongToken => problem(StatusCode::FORBIDDEN),
            Self::NotFound => problem(StatusCode::NOT_FOUND),
            Self::AliasTaken => problem(StatusCode::CONFLICT),
            Self::Gone => problem(StatusCode::GONE),
            Self::Invalid(errors) => problem(StatusCode::UNPROCESSABLE_ENTITY).errors(errors),
            Self::TooMany(after) => problem(StatusCode::TOO_MANY_REQUESTS).retry_after(after),
            Self::DatabaseAway | Self::NoFreeCode => {
                problem(StatusCode::SERVICE_UNAVAILABLE).retry_after(Duration::from_secs(1))
            }
            Self::Internal(cause) => {
                tracing::error!(?cause, "answered 500");
                Problem::internal()
            }
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        // Class 40: a deadlock, or another reason to roll back. It passes, so the client may try again.
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if is_away(&error) || code.is_some_and(|code| code.starts_with("40")) {
            // At `debug`, because while the database is away each request logs this.
            tracing::debug!(%error, "a database is away");
            Self::DatabaseAway
        } else {
            Self::internal(error)
        }
    }
}
