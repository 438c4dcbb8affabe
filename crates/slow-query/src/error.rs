//! What can go wrong, and what does the client see of it?

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use edge::{FieldError, Problem, database::is_away};
use sqlx::error::DatabaseError;

/// Everything that can go wrong: a refusal with its status and words, one of the constants below. What it displays is what the
/// client may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{1}")]
pub struct Error(u16, &'static str);

/// The parameter of a drawing.
const PARAMETER: &str = "remedy";

/// What can go wrong in all modules of this service.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// No such patient, remedy, or remedy in effect.
    pub const NOT_FOUND: Self = Self(404, "there is nothing here");
    /// The remedy is in effect, or another one that makes the same index; or one of the two replaces the table.
    pub const APPLIED: Self = Self(
        409,
        "this remedy, a part of it, or one that it would disturb is in effect: take it back first",
    );
    /// A view of somebody else's reads the table that this remedy has made.
    pub const IN_USE: Self =
        Self(409, "something else uses what this remedy has made: drop that first");
    /// Old statistics cannot be made again.
    pub const NO_WAY_BACK: Self =
        Self(409, "this cannot be taken back: serve with --reset to begin anew");
    /// A drawing has one parameter.
    pub const NO_PARAMETER: Self = Self(422, "`remedy` is the only parameter");
    /// The cause goes to the log, and never to the client.
    pub const OUR_FAULT: Self = Self(500, "something went wrong on our side");
    /// A lock did not come in time.
    pub const BUSY: Self = Self(503, "somebody holds a lock that is needed here; try again");
    /// Too many examinations at once, or one that takes too long.
    pub const TOO_SLOW: Self = Self(503, "this took too long, and nothing was changed; try again");
    /// The database does not answer. A remedy that was not answered may be in effect: ask.
    pub const DATABASE_AWAY: Self = Self(503, "the database is away; try again");
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Problem::new(status, self.1);
        let pause = Duration::from_secs(1);
        match self.0 {
            422 => problem.errors(vec![FieldError::new(PARAMETER, self.1)]),
            503 => problem.retry_after(pause),
            _ => problem,
        }
        .into_response()
    }
}

/// A lock did not come in time.
pub fn is_locked(error: &sqlx::Error) -> bool {
    code(error) == "55P03"
}

/// The extension is there, and its library was not loaded when the server started.
pub fn is_not_loaded(error: &sqlx::Error) -> bool {
    code(error) == "55000"
}

/// PostgreSQL's five letters for an error.
pub fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.unwrap_or_default().into_owned()
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &*code(&error) {
            // The row in `treatments`, the index or the statistics are there.
            "23505" | "42P07" | "42710" => Self::APPLIED,
            "2BP01" => Self::IN_USE,
            "55P03" | "40P01" => Self::BUSY,
            "57014" => Self::TOO_SLOW,
            _ if is_away(&error) => Self::DATABASE_AWAY,
            _ => {
                tracing::error!(%error, "answered 500");
                Self::OUR_FAULT
            }
        }
    }
}
