//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away, json::JsonRejection};
use sqlx::error::DatabaseError;

/// The patches that we know, for the header of this name.
pub const ACCEPT_PATCH: &str = "application/merge-patch+json, application/json-patch+json";

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400, 413, 415 or 422: the body is not what it should be.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// 400: the header `Idempotency-Key` cannot be one.
    #[error(
        "Idempotency-Key must be given once, as 1 to 255 visible ASCII characters without a comma"
    )]
    BadKey,
    /// 404: nothing is here, or not any more.
    #[error("there is nothing here")]
    NotFound,
    /// 406: we can write nothing that `Accept` wants.
    #[error("we write application/json, and application/vnd.worked-answers.v1+json or .v2+json")]
    NotAcceptable,
    /// 409: somebody else has this e-mail address.
    #[error("this e-mail address is taken")]
    EmailTaken,
    /// 409: a user with open orders cannot be deleted.
    #[error("there are open orders: cancel them first")]
    OpenOrders,
    /// 409: the state of the order does not allow this move.
    #[error("the order does not allow this now: see its _links")]
    NotNow,
    /// 409: a `test` of a JSON Patch does not hold.
    #[error("a test of the patch does not hold")]
    TestFailed,
    /// 409: a request with the same key is under way.
    #[error("a request with this Idempotency-Key is under way; try again")]
    KeyInUse,
    /// 412: the user is not (or not any more) as the condition wants it.
    #[error("the user is not as the condition wants it: read it again")]
    Changed,
    /// 415: a patch of a type that we do not know.
    #[error("send a patch of one of the types in Accept-Patch")]
    PatchType,
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 422: the key came with another body before.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// 428: a user is replaced only under a condition.
    #[error("say with If-Match which version this is for")]
    NoIfMatch,
    /// 503: the database does not answer, or not in time. Whether it did what it was asked is unknown.
    #[error("the database is away; try again")]
    DatabaseAway,
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

impl Error {
    /// What it is over HTTP.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Body(rejection) => rejection.clone().into_response().status(),
            Self::BadKey => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::EmailTaken
            | Self::OpenOrders
            | Self::NotNow
            | Self::TestFailed
            | Self::KeyInUse => StatusCode::CONFLICT,
            Self::Changed => StatusCode::PRECONDITION_FAILED,
            Self::PatchType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoIfMatch => StatusCode::PRECONDITION_REQUIRED,
            Self::DatabaseAway => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = Problem::new(self.status(), self.to_string());
        match self {
            Self::Body(rejection) => return rejection.into_response(),
            Self::Internal(cause) => {
                tracing::error!(error = cause.as_ref(), "answered 500");
                problem
            }
            Self::Invalid(errors) => problem.errors(errors),
            Self::PatchType => problem.header(
                HeaderName::from_static("accept-patch"),
                HeaderValue::from_static(ACCEPT_PATCH),
            ),
            Self::DatabaseAway | Self::KeyInUse => problem.retry_after(Duration::from_secs(1)),
            _ => problem,
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    /// A constraint that refuses a statement has a name, and the name says what the client did.
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(DatabaseError::constraint) {
            Some("users_email") => Self::EmailTaken,
            // Two created this user at once, and the other one was first.
            Some("users_pkey") => Self::Changed,
            Some("orders_user") => Self::NotFound,
            _ if is_away(&error) => Self::DatabaseAway,
            _ => Self::Internal(Arc::new(error)),
        }
    }
}
