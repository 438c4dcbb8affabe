//! What can go wrong, and what does the client see of it?

use std::time::Duration;

use axum::{http::StatusCode, response::IntoResponse, response::Response};
use edge::{FieldError, Problem, database::is_away};
use sqlx::error::DatabaseError;

/// Everything that can go wrong. What it displays is what the client may read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// 422: well-formed, but not something that we do.
    #[error("this cannot be done as it was asked for")]
    Invalid(Vec<FieldError>),
    /// A refusal, with its status and words: one of the constants below. After 503 it may go well the next time.
    #[error("{1}")]
    Refused(u16, &'static str),
}

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Nothing is here, or not any more.
    pub const NOT_FOUND: Self = Self::Refused(404, "there is nothing here");
    /// The name has another definition.
    pub const OTHER_INDEX: Self = Self::Refused(409, "another index has this name: drop it first");
    /// An index is dropped when its build has ended.
    pub const BUILDING: Self = Self::Refused(409, "this index is being built");
    /// A constraint needs this index.
    pub const OF_A_CONSTRAINT: Self = Self::Refused(409, "the primary key needs this index");
    /// A unique index has these values.
    pub const TAKEN: Self = Self::Refused(409, "a unique index has these values already");
    /// The cause goes to the log, and never to the client.
    pub const OUR_FAULT: Self = Self::Refused(500, "something went wrong on our side");
    /// A lock did not come in time, or too many builds wait.
    pub const BUSY: Self = Self::Refused(503, "the table is busy; try again");
    /// The database does not answer, or not in time. Whether it did what it was asked is unknown.
    pub const DATABASE_AWAY: Self = Self::Refused(503, "the database is away; try again");

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
            Self::Invalid(errors) => problem(422).errors(errors.clone()),
            Self::Refused(503, _) => problem(503).retry_after(Duration::from_secs(1)),
            Self::Refused(status, _) => problem(*status),
        }
        .into_response()
    }
}

/// PostgreSQL's five letters for an error.
pub fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.unwrap_or_default().into_owned()
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &*code(&error) {
            _ if matches!(error, sqlx::Error::RowNotFound) => Self::NOT_FOUND,
            "23505" => Self::TAKEN,
            "23503" => Self::invalid("referred_by", "is the id of nobody"),
            // Of all that a client sends, only the notes can be longer than an entry of an index.
            "54000" => Self::invalid("notes", "an index on it takes 2704 bytes at most"),
            "55P03" | "40P01" => Self::BUSY,
            "22021" => Self::invalid("notes", "holds NUL, which no text of PostgreSQL may"),
            code if code.starts_with("22") => Self::invalid("params", "has a wrong value"),
            _ if is_away(&error) => Self::DATABASE_AWAY,
            _ => {
                tracing::error!(%error, "answered 500");
                Self::OUR_FAULT
            }
        }
    }
}

// ANCHOR: why_not_built
/// Why an index was not built, for whoever asked for it.
pub fn why_not_built(error: &sqlx::Error) -> &'static str {
    match &*code(error) {
        "23505" => "two rows have the same values, so no unique index can be built",
        "54000" => "a value is longer than an index takes: 2704 bytes in a B-tree",
        "0A000" | "42704" | "58P01" | "42501" => "this server has no index of this kind",
        "42P07" => "another index has this name",
        "53100" => "the disk is full",
        "57014" | "57P01" => "somebody ended the build",
        _ => "the build broke off; the log says why",
    }
}
// ANCHOR_END: why_not_built
