// caught by: deadlock
impl From<sqlx::Error> for Error {
    /// SQLSTATEs are those of PostgreSQL's documentation, appendix A.
    fn from(error: sqlx::Error) -> Self {
        let (code, constraint) = match &error {
            sqlx::Error::Database(error) => (error.code().unwrap_or_default(), error.constraint()),
            _ => ("".into(), None),
        };
        match (code.as_ref(), constraint) {
            // The mistake: a deadlock (40P01) is no serialization failure, and nobody thought of it.
            ("40001", _) => Self::Contended,
            ("23514", Some("accounts_no_overdraft")) => Self::InsufficientFunds,
            ("23514", Some("accounts_limit")) | ("22003", _) => Self::BeyondLimit,
            _ if is_away(&error) => Self::DatabaseAway,
            _ => Self::internal(error),
        }
    }
}
