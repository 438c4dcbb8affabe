//! How does a process get more than the default 256 (macOS) or 1,024 open files, to serve or open many connections? It
//! raises its soft limit.
//!
//! The programs that we start get the old limit again, because some programs loop over every number up to the limit.

use std::{process::Command, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for everything that we do. By default macOS allows no more than this.
const MOST: u64 = if cfg!(target_os = "macos") { 10_240 } else { 65_536 };
/// The variable that gives a process of ours the limit to begin with.
const VARIABLE: &str = "LAB_OPEN_FILES";

/// The limit before it was raised.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit as far as we need and the system allows.
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
        Err(error) => tracing::debug!(%error, "cannot raise the limit on open files"),
    }
}

/// Starts another process of ours with the limit that this process began with.
pub(crate) fn as_before(command: &mut Command) -> &mut Command {
    match BEFORE.get() {
        Some(before) => command.env(VARIABLE, before.to_string()),
        None => command,
    }
}

/// Sets the limit that the parent process passed on.
pub(crate) fn begin() {
    let given = std::env::var(VARIABLE).ok().and_then(|limit| limit.parse().ok());
    if let Some(current) = given {
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    }
}
