//! What can go wrong, and what does the client see of it?

use std::{collections::BTreeMap, error::Error as StdError, sync::Arc, time::Duration};

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away, json::JsonRejection};
use sqlx::error::DatabaseError;
use utoipa::openapi::{Ref, RefOr, Response as Documented};
use utoipa::{IntoResponses, ToResponse, ToSchema};

/// The header that names the patches we know.
pub const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// These.
pub const PATCHES: HeaderValue =
    HeaderValue::from_static("application/merge-patch+json, application/json-patch+json");

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400, 413, 415 or 422: the body is not what it should be.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// A refusal, with its status and words: one of the constants below.
    #[error("{1}")]
    Refused(u16, &'static str),
    /// The same, if it may go well the next time.
    #[error("{1}; try again")]
    NotNow(u16, &'static str),
    /// 500: our own fault. The cause goes to the log, and never to the client.
    #[error("something went wrong on our side")]
    Internal(Arc<dyn StdError + Send + Sync>),
}

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    // ANCHOR: refusals
    /// An `Idempotency-Key` that is none, or two.
    pub const BAD_KEY: Self = Self::Refused(400, "a key is 1 to 255 visible characters, no comma");
    /// Nothing is here, or not any more.
    pub const NOT_FOUND: Self = Self::Refused(404, "there is nothing here");
    /// `Accept` does not take JSON.
    pub const NOT_ACCEPTABLE: Self = Self::Refused(406, "we write nothing that Accept wants");
    /// Somebody else has this e-mail address.
    pub const EMAIL_TAKEN: Self = Self::Refused(409, "this e-mail address is taken");
    /// A user who is still owed something cannot be deleted.
    pub const OPEN_ORDERS: Self = Self::Refused(409, "there are open orders: cancel them first");
    /// The order does not stand where the move begins.
    pub const NOT_ALLOWED: Self = Self::Refused(409, "the order does not allow this now");
    /// A `test` of a JSON Patch.
    pub const TEST_FAILED: Self = Self::Refused(409, "a test of the patch does not hold");
    /// A request with the same key is under way.
    pub const KEY_IN_USE: Self = Self::NotNow(409, "this Idempotency-Key is in use");
    /// The user is not, or not any more, as the condition wants it.
    pub const CHANGED: Self = Self::Refused(412, "there is another version: read it again");
    /// A patch of a type that we do not know.
    pub const PATCH_TYPE: Self = Self::Refused(415, "send one of the types in Accept-Patch");
    /// The key came with another body before.
    pub const KEY_REUSED: Self = Self::Refused(422, "this Idempotency-Key came with another body");
    /// A user is replaced only under a condition.
    pub const NO_IF_MATCH: Self = Self::Refused(428, "say with If-Match which version this is for");
    /// The database does not answer, or not in time. Whether it did what it was asked is unknown.
    pub const DATABASE_AWAY: Self = Self::NotNow(503, "the database is away");
    // ANCHOR_END: refusals

    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
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
            Self::Invalid(errors) => problem(422).errors(errors.clone()),
            Self::Refused(415, _) => problem(415).header(ACCEPT_PATCH, PATCHES),
            Self::Refused(status, _) => problem(*status),
            Self::NotNow(status, _) => problem(*status).retry_after(Duration::from_secs(1)),
            Self::Internal(cause) => {
                tracing::error!(error = cause.as_ref(), "answered 500");
                problem(500)
            }
        }
        .into_response()
    }
}
// ANCHOR_END: error_response

impl From<sqlx::Error> for Error {
    /// A constraint that refuses a statement has a name, and the name says what the client did.
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error().and_then(DatabaseError::constraint) {
            Some("users_email") => Self::EMAIL_TAKEN,
            // Two created this user at once, and the other one was first.
            Some("users_pkey") => Self::CHANGED,
            Some("orders_user") => Self::NOT_FOUND,
            _ if is_away(&error) => Self::DATABASE_AWAY,
            _ => Self::Internal(Arc::new(error)),
        }
    }
}

/// A problem document (RFC 9457).
#[derive(ToResponse, ToSchema)]
#[response(content_type = "application/problem+json")]
#[expect(dead_code, reason = "it is only described here; `edge` writes it")]
pub struct ProblemBody {
    title: String,
    status: u16,
    detail: String,
}

impl IntoResponses for Error {
    /// For the document: whatever goes wrong is a problem document.
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        let problem =
            |status: u16| (status.to_string(), RefOr::Ref(Ref::from_response_name("ProblemBody")));
        [400, 404, 406, 409, 412, 413, 415, 422, 428, 503].map(problem).into()
    }
}
