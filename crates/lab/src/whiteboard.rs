//! Which version of an answer do this program's children serve? The whiteboard version, if it was asked to try that one.
//!
//! An experiment is its own program's only work, so this holds for the whole process: no fixture has to pass it on.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED_FOR: AtomicBool = AtomicBool::new(false);
static SERVED: AtomicBool = AtomicBool::new(false);

/// From here on, every child that serves an answer serves its whiteboard version.
pub(crate) fn ask_for() {
    ASKED_FOR.store(true, Ordering::Relaxed);
}

/// Whether they do.
pub(crate) fn is_asked_for() -> bool {
    ASKED_FOR.load(Ordering::Relaxed)
}

/// The word for a child that is about to serve, if the whiteboard version was asked for.
pub(crate) fn word() -> Option<&'static str> {
    is_asked_for().then(|| {
        SERVED.store(true, Ordering::Relaxed);
        "--whiteboard"
    })
}

/// Whether any child has served it.
pub(crate) fn was_served() -> bool {
    SERVED.load(Ordering::Relaxed)
}
