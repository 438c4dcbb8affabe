//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};

/// Everything that can go wrong behind the edge, which refuses what cannot be read. What it displays is what the
/// client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: more than one `Authorization` header.
    #[error("send one Authorization header")]
    TwoTokens,
    /// 401: no account has this address, or its password is another. Which of the two is nobody's business.
    #[error("the address or the password is wrong")]
    WrongCredentials,
    /// 401: there is no bearer token in the request.
    #[error("this needs an access token")]
    NoToken,
    /// 401: the access token is not to be believed. Why goes to the log: who made the token knows, or should not.
    #[error("the access token is not valid, or not any more")]
    InvalidToken(&'static str),
    /// 401: the refresh token is none of ours, or has ended, or was used before.
    #[error("the refresh token is not valid, or not any more; log in again")]
    InvalidRefreshToken,
    /// 404: there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 409: there is an account of this address.
    #[error("there is an account of this address already")]
    EmailTaken,
    /// 422: well-formed, but not something that we take.
    #[error("something in the request is not as it should be")]
    Invalid(Vec<FieldError>),
    /// 429: this account or this client has failed too often.
    #[error("too many failed logins; wait before you try again")]
    TooManyAttempts {
        /// When it may try again.
        retry_after: Duration,
    },
    /// 503: a server behind us does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("{0} cannot be reached; try again")]
    Away(&'static str),
    /// 503: too many passwords are waiting to be hashed.
    #[error("too many logins at once; try again")]
    Busy,
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
            Self::TwoTokens => StatusCode::BAD_REQUEST,
            Self::WrongCredentials
            | Self::NoToken
            | Self::InvalidToken(_)
            | Self::InvalidRefreshToken => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyAttempts { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Away(_) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    // ANCHOR: challenge
    /// What a client has to show (RFC 6750, section 3). Without a token there is no error to name yet.
    fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::NoToken | Self::WrongCredentials => Some("Bearer"),
            Self::InvalidToken(_) | Self::InvalidRefreshToken => {
                Some(r#"Bearer error="invalid_token""#)
            }
            Self::TwoTokens => Some(r#"Bearer error="invalid_request""#),
            _ => None,
        }
        .map(HeaderValue::from_static)
    }
    // ANCHOR_END: challenge
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match &self {
            Self::Internal(cause) => tracing::error!(error = cause.as_ref(), "answered 500"),
            Self::InvalidToken(reason) => tracing::debug!(reason, "an access token is refused"),
            _ => {}
        }
        let mut problem = Problem::new(self.status(), self.to_string());
        if let Some(challenge) = self.challenge() {
            problem = problem.header(WWW_AUTHENTICATE, challenge);
        }
        match self {
            Self::Invalid(errors) => problem.errors(errors),
            Self::TooManyAttempts { retry_after } => problem.retry_after(retry_after),
            Self::Away(_) | Self::Busy => problem.retry_after(Duration::from_secs(1)),
            _ => problem,
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "the database is away");
            Self::Away("the database")
        } else {
            Self::internal(error)
        }
    }
}
