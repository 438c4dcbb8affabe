//! How does this program start itself again, as a child that can be killed or as the keeper of a server?

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::ensure;

/// Whether `main` calls `take_over`. A program that does not would, started again, only repeat its own work.
static KNOWS_ITS_PARTS: AtomicBool = AtomicBool::new(false);

/// Called by [`take_over`](crate::take_over).
pub(crate) fn knows_its_parts() {
    KNOWS_ITS_PARTS.store(true, Ordering::Relaxed);
}

/// Its path. On Linux this name stays right even after cargo has replaced the executable with a new build.
pub(crate) fn path() -> anyhow::Result<PathBuf> {
    ensure!(
        KNOWS_ITS_PARTS.load(Ordering::Relaxed),
        "this program cannot start itself again: its `main` has to call `lab::take_over` first"
    );
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map_err(|error: io::Error| error.into())
}
