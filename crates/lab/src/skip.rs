//! What if an experiment cannot run on this machine? It is skipped, and says why. That is not a failure.

use std::fmt;

/// Ends a run that is not possible on this machine: `return Err(skip("no binaries"))`.
pub fn skip(why: impl fmt::Display) -> anyhow::Error {
    Skipped(why.to_string()).into()
}

/// Why a run was skipped, if this error comes from [`skip`].
pub fn why_skipped(error: &anyhow::Error) -> Option<&str> {
    error.downcast_ref().map(|Skipped(why)| why.as_str())
}

#[derive(Debug)]
struct Skipped(String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skipped {}
