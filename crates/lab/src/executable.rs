//! How does this program start itself again, as a server that can be killed or as the keeper of one?

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::ensure;

/// Whether `main` asks what it was started for. Another program that is started again would do its own work once more.
static KNOWS_ITS_PARTS: AtomicBool = AtomicBool::new(false);

/// Said by [`take_over`](crate::take_over).
pub(crate) fn knows_its_parts() {
    KNOWS_ITS_PARTS.store(true, Ordering::Relaxed);
}

/// Its path. On Linux this name stays right also after cargo has put a new build in the old one's place.
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
