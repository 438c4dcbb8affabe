//! What can go wrong, and what does the client see of it?

use std::{error::Error as StdError, sync::Arc, time::Duration};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away, json::JsonRejection};

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 400, 413, 415 or 422: the body is not what it should be.
    #[error("{0}")]
    Body(#[from] JsonRejection),
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// 409: the unique index of this name refuses the row.
    #[error("the unique index {0} has these values already")]
    Taken(String),
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
    /// Nothing is here, or not any more.
    pub const NOT_FOUND: Self = Self::Refused(404, "there is nothing here");
    /// The name has another definition.
    pub const OTHER_INDEX: Self = Self::Refused(409, "another index has this name: drop it first");
    /// An index is dropped when its build has ended.
    pub const BUILDING: Self = Self::NotNow(409, "this index is being built");
    /// A constraint needs this index.
    pub const OF_A_CONSTRAINT: Self = Self::Refused(409, "the primary key needs this index");
    /// Somebody refers to this user.
    pub const REFERRED_TO: Self = Self::Refused(409, "other users were referred by this one");
    /// Too many builds wait.
    pub const QUEUE_FULL: Self = Self::NotNow(503, "too many indexes wait to be built");
    /// A lock did not come in time.
    pub const BUSY: Self = Self::NotNow(503, "the table is busy");
    /// The database does not answer, or not in time. Whether it did what it was asked is unknown.
    pub const DATABASE_AWAY: Self = Self::NotNow(503, "the database is away");

    /// One field is wrong.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Problem::new(status, self.to_string())
        };
        match &self {
            Self::Body(rejection) => return rejection.clone().into_response(),
            Self::Invalid(errors) => problem(422).errors(errors.clone()),
            Self::Taken(_) => problem(409),
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

/// PostgreSQL's five letters for an error.
pub fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let constraint = error.as_database_error().and_then(|it| it.constraint());
        match (code(&error).as_deref(), constraint) {
            (Some("23505"), Some(index)) => Self::Taken(index.to_owned()),
            (Some("23503"), _) => Self::invalid("referred_by", "is the id of nobody"),
            // Of all that a client sends, only the notes can be longer than an entry of an index.
            (Some("54000"), _) => Self::invalid(
                "notes",
                "is longer than an index on it takes: 2704 bytes in a B-tree",
            ),
            (Some("55P03"), _) => Self::BUSY,
            _ if is_away(&error) => Self::DATABASE_AWAY,
            _ => Self::Internal(Arc::new(error)),
        }
    }
}

// ANCHOR: why_not_built
/// Why an index was not built, for whoever asked for it.
pub fn why_not_built(error: &sqlx::Error) -> &'static str {
    match code(error).as_deref() {
        Some("23505") => "two rows have the same values, so no unique index can be built",
        Some("54000") => "a value is longer than an index takes: 2704 bytes in a B-tree",
        Some("0A000" | "42704" | "58P01" | "42501") => "this server has no index of this kind",
        Some("53100") => "the disk is full",
        Some("42P07") => "another index has this name",
        Some("57014" | "57P01") => "somebody ended the build",
        _ => "the build broke off; the log says why",
    }
}
// ANCHOR_END: why_not_built
