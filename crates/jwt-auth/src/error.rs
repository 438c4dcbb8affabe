//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::{
    extract::rejection::{JsonDataError, JsonRejection},
    http::{
        HeaderValue, StatusCode,
        header::{RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use problem_details::{ProblemDetails, ProblemType};
use serde::Serialize;

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400: the body is no JSON, or ended too soon.
    #[error("the body is not JSON: {0}")]
    Malformed(String),
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
    /// 405.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// 408: the client took too long to send its request, or we took too long to answer it.
    #[error("the request took too long")]
    TooSlow,
    /// 409: there is an account of this address.
    #[error("there is an account of this address already")]
    EmailTaken,
    /// 413: the body is longer than we read.
    #[error("the body is too long")]
    TooLarge,
    /// 415: the body does not say that it is JSON.
    #[error("send JSON, with `content-type: application/json`")]
    NotJson,
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

/// What is wrong with one field.
#[derive(Clone, Debug, Serialize)]
pub struct FieldError {
    /// Its name.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Error {
    /// Our own fault.
    pub fn internal(cause: impl StdError + Send + Sync + 'static) -> Self {
        Self::Internal(Arc::new(cause))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::TwoTokens => StatusCode::BAD_REQUEST,
            Self::WrongCredentials
            | Self::NoToken
            | Self::InvalidToken(_)
            | Self::InvalidRefreshToken => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
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

    /// In seconds: the header has no finer unit, and 0 would ask for a retry at once.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyAttempts { retry_after } => Some(retry_after.as_secs() + 1),
            Self::Away(_) | Self::Busy => Some(1),
            _ => None,
        }
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Errors {
            errors: Vec<FieldError>,
        }
        if let Self::Internal(cause) = &self {
            tracing::error!(error = cause.as_ref(), "answered 500");
        }
        if let Self::InvalidToken(reason) = &self {
            tracing::debug!(reason, "an access token is refused");
        }
        let problem = ProblemDetails::from_status_code(self.status())
            .with_type(ProblemType::default())
            .with_detail(self.to_string());
        let retry_after = self.retry_after().map(HeaderValue::from);
        let challenge = self.challenge();
        let mut response = match self {
            Self::Invalid(errors) => problem.with_extensions(Errors { errors }).into_response(),
            _ => problem.into_response(),
        };
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if let Some(challenge) = challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let is_away = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // 08 connection exception, 53 insufficient resources, 57 operator intervention (shutting
            // down, starting up, statement timeout): PostgreSQL's documentation, appendix A.
            sqlx::Error::Database(error) => error
                .code()
                .is_some_and(|code| ["08", "53", "57"].iter().any(|class| code.starts_with(class))),
            _ => false,
        };
        if is_away {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "the database is away");
            Self::Away("the database")
        } else {
            Self::internal(error)
        }
    }
}

impl From<JsonRejection> for Error {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::JsonDataError(error) => Self::Invalid(vec![field_error(&error)]),
            JsonRejection::MissingJsonContentType(_) => Self::NotJson,
            JsonRejection::JsonSyntaxError(error) => Self::Malformed(cause(&error)),
            other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            other => Self::Malformed(cause(&other)),
        }
    }
}

/// axum reads JSON with `serde_path_to_error`, which knows the field that was wrong, and wraps it more than once.
fn field_error(error: &JsonDataError) -> FieldError {
    type AtPath = serde_path_to_error::Error<serde_json::Error>;
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    match causes.find_map(|cause| cause.downcast_ref::<AtPath>()) {
        Some(error) => {
            FieldError { field: error.path().to_string(), message: error.inner().to_string() }
        }
        None => FieldError { field: ".".to_owned(), message: cause(error) },
    }
}

fn cause(error: &dyn StdError) -> String {
    error.source().unwrap_or(error).to_string()
}
