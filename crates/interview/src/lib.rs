//! The mock interview, and the quiz of verdicts: how an interviewer asks, and what a reader learns from it.
//!
//! In reading order: [`markdown`] shows pieces of a chapter elsewhere; [`said`] reads a number as people write it, and
//! an [`estimate`] judges it. The [`sheet`] is an answer's `interview.toml`, the [`chapter`] has the rest, [`measured`]
//! the recorded figures, and a [`subject`] is all of them for one question. The [`clock`] counts the stages, a [`step`]
//! is what is asked next, a [`session`] takes the reader's answers, a [`screen`] is what they see, and the [`outcome`]
//! judges them. [`memory`] knows what is weak or long ago, [`progress`] keeps all results, [`choice`] says what to ask
//! next, and the [`quiz`] which sentences. [`mod@export`] writes results as Markdown. [`terminal`] and [`talk`] hold an
//! interview in a terminal, and [`words`] has the commands. The guide's pages drive the same sessions.

pub mod markdown;
pub mod said;
pub mod estimate;
pub mod sheet;
pub mod chapter;
pub mod measured;
pub mod subject;
pub mod clock;
pub mod step;
pub mod session;
pub mod screen;
pub mod outcome;
pub mod memory;
pub mod progress;
pub mod choice;
pub mod quiz;
pub mod export;
pub mod terminal;
pub mod talk;
pub mod words;

use std::path::{Path, PathBuf};

pub use sheet::{Interview, Kind, Stage};
use time::{OffsetDateTime, UtcOffset};

/// The time as the reader's own clock shows it, so that its date is the reader's today.
pub fn now() -> OffsetDateTime {
    // `time` does not read the offset in a program with threads; `chrono` does.
    let seconds = chrono::Local::now().offset().local_minus_utc();
    // In whole minutes: RFC 3339, which our files use, has no seconds here.
    let offset = UtcOffset::from_whole_seconds(seconds / 60 * 60).unwrap_or(UtcOffset::UTC);
    OffsetDateTime::now_utc().to_offset(offset)
}

/// The workspace's folder when this was compiled. Cargo compiles again if the folder moves.
pub fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.and_then(Path::parent).unwrap_or(Path::new(".")).to_owned()
}
