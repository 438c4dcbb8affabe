// caught by: deadlock
impl From<sqlx::Error> for Error {
    /// SQLSTATEs are those of PostgreSQL's documentation, appendix A.
    fn from(error: sqlx::Error) -> Self {
        let (code, constraint) = match &error {
            sqlx::Error::Database(error) => (error.code().unwrap_or_default(), error.constraint()),
            sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => ("08006".into(), None),
            _ => ("".into(), None),
        };
        match (code.as_ref(), constraint) {
            // The mistake: a deadlock (40P01) is no serialization failure, and nobody thought of it.
            ("40001", _) => Self::Contended,
            ("23514", Some("accounts_no_overdraft")) => Self::InsufficientFunds,
            ("23514", Some("accounts_limit")) | ("22003", _) => Self::BeyondLimit,
            ("25P03", _) => Self::away(&error),
            (code, _) if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                Self::away(&error)
            }
            _ => Self::internal(error),
        }
    }
}
