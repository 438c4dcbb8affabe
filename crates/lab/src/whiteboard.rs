//! Which version of an answer do this program's children serve? The whiteboard version, if the command line asks for
//! it.
//!
//! A process with this option runs only one experiment, so the option is global: no fixture has to pass it on.

use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Arg, ArgAction, ArgMatches};

/// The name of the option.
const WORD: &str = "whiteboard";

static ASKED_FOR: AtomicBool = AtomicBool::new(false);
static SERVED: AtomicBool = AtomicBool::new(false);

/// From here on, every child that serves an answer serves its whiteboard version.
pub(crate) fn ask_for() {
    ASKED_FOR.store(true, Ordering::Relaxed);
}

/// Whether children serve the whiteboard version.
pub(crate) fn is_asked_for() -> bool {
    ASKED_FOR.load(Ordering::Relaxed)
}

/// The argument for a child that is about to serve, if it has to serve the whiteboard version.
pub(crate) fn word() -> Option<&'static str> {
    is_asked_for().then(|| {
        SERVED.store(true, Ordering::Relaxed);
        "--whiteboard"
    })
}

/// Whether any child was told to serve it.
pub(crate) fn was_served() -> bool {
    SERVED.load(Ordering::Relaxed)
}

/// `--whiteboard`, for a command of an answer that has such a version.
pub(crate) fn flag(help: &'static str) -> Arg {
    // It may stand twice: an experiment may start this version beside the answer, also when it tries this version.
    Arg::new(WORD).long(WORD).action(ArgAction::SetTrue).overrides_with(WORD).help(help)
}

/// Whether the option is set. A command without the [`flag`] does not have it.
pub(crate) fn is_wanted(matches: &ArgMatches) -> bool {
    matches.try_get_one::<bool>(WORD).ok().flatten() == Some(&true)
}
