//! How many files may a process have open that serves many connections, or opens many? More than the 256 (macOS) or
//! 1,024 that it begins with.
//!
//! Programs of ours that we start, and the servers of their keepers, begin with the old limit again: some programs look
//! at every number up to it.

use std::{process::Command, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for everything that we do. macOS allows no more than this without more ado.
const MOST: u64 = if cfg!(target_os = "macos") { 10_240 } else { 65_536 };
/// The limit with which a process of ours begins.
const VARIABLE: &str = "LAB_OPEN_FILES";

/// The limit before it was raised.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit as far as it makes sense.
pub fn allow_many() {
    let limit = getrlimit(Resource::Nofile);
    let Some(before) = limit.current else { return };
    let wanted = limit.maximum.map_or(MOST, |maximum| maximum.min(MOST));
    if wanted <= before {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }) {
        Ok(()) => {
            let _ = BEFORE.set(before);
        }
        Err(error) => tracing::debug!(%error, "the limit on open files stays"),
    }
}

/// Lets another process of ours begin with the limit that we began with.
pub(crate) fn as_before(command: &mut Command) -> &mut Command {
    match BEFORE.get() {
        Some(before) => command.env(VARIABLE, before.to_string()),
        None => command,
    }
}

/// Takes the limit from whoever started this process.
pub(crate) fn begin() {
    let given = std::env::var(VARIABLE).ok().and_then(|limit| limit.parse().ok());
    if let Some(current) = given {
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    }
}
