//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem, database::is_away};

/// What most functions here return.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong behind the edge, which refuses what cannot be read. What it displays is what the
/// client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: more than one `Authorization` header.
    #[error("send one Authorization header")]
    TwoTokens,
    /// 401: no account has this address, or its password is another. Nobody learns which of the two.
    #[error("the address or the password is wrong")]
    WrongCredentials,
    /// 401: there is no bearer token in the request.
    #[error("this needs an access token")]
    NoToken,
    /// 401: the access token is not to be believed. The reason goes only to the log: it would help a forger.
    #[error("the access token is not valid, or no longer")]
    InvalidToken(&'static str),
    /// 401: the refresh token is none of ours, or has ended, or was used before.
    #[error("the refresh token is not valid, or no longer; log in again")]
    InvalidRefreshToken,
    /// 409: there is an account of this address.
    #[error("there is an account of this address already")]
    EmailTaken,
    /// 422: well-formed, but with a bad address or password.
    #[error("a field of the request is not as it should be")]
    Invalid(Vec<FieldError>),
    /// 429: logins of this account or from this client have failed too often, or it registers too many accounts.
    #[error("too many attempts; wait before you try again")]
    TooManyAttempts(Duration),
    /// 503: a server behind us does not answer in time, or too many passwords are waiting to be hashed. Nobody knows
    /// whether the request was carried out.
    #[error("{0}; try again")]
    Unavailable(&'static str),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

impl Error {
    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    // ANCHOR: challenge
    /// The status, and the challenge that tells a client what to show (RFC 6750, section 3). Without a token there is
    /// no error to name yet.
    fn status(&self) -> (StatusCode, Option<&'static str>) {
        match self {
            Self::NoToken | Self::WrongCredentials => (StatusCode::UNAUTHORIZED, Some("Bearer")),
            Self::InvalidToken(_) | Self::InvalidRefreshToken => {
                (StatusCode::UNAUTHORIZED, Some(r#"Bearer error="invalid_token""#))
            }
            Self::TwoTokens => (StatusCode::BAD_REQUEST, Some(r#"Bearer error="invalid_request""#)),
            Self::EmailTaken => (StatusCode::CONFLICT, None),
            Self::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, None),
            Self::TooManyAttempts(_) => (StatusCode::TOO_MANY_REQUESTS, None),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        }
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
        let (status, challenge) = self.status();
        let mut problem = Problem::new(status, self.to_string());
        if let Some(challenge) = challenge {
            problem = problem.header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        match self {
            Self::Invalid(errors) => problem.errors(errors),
            Self::TooManyAttempts(retry_after) => problem.retry_after(retry_after),
            Self::Unavailable(_) => problem.retry_after(Duration::from_secs(1)),
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
            Self::Unavailable("the database cannot be reached")
        } else {
            Self::internal(error)
        }
    }
}
