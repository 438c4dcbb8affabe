// caught by: deadlock
impl From<sqlx::Error> for Error {
    /// SQLSTATEs are those of PostgreSQL's documentation, appendix A.
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(error) => error.code().unwrap_or_default(),
            _ => "".into(),
        };
        match code.as_ref() {
            // The mistake: a deadlock (40P01) is no serialization failure, and nobody thought of it.
            "40001" => Self::Contended,
            "22003" => Self::BeyondLimit,
            _ if is_away(&error) => Self::DatabaseAway,
            _ => Self::internal(error),
        }
    }
}
