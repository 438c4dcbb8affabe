//! How does a reader extend the answers, and know that they got it right? By exercises: gaps cut from the
//! real code, filled in place, and checked by the code's own tests and experiments.
//!
//! In reading order: an [`exercise`] says what is cut and what must hold, [`gap`] cuts it, [`progress`] remembers how
//! far the reader is, and [`checkout`] knows whose a text is. [`process`] runs a program to its end, [`mod@build`] builds
//! an answer, and [`check`] tries what the reader wrote. [`desk`] leads them through it, [`keys`] and [`watch`] without
//! commands; [`words`] are the commands. [`proof`] shows that every exercise is worth doing and that every
//! [`experiment`] can fail, by its [`sabotage`]s; [`proved`] remembers which are.

pub mod exercise;
pub mod gap;
pub mod progress;
pub mod checkout;
pub mod process;
pub mod build;
pub mod check;
pub mod desk;
pub mod keys;
pub mod watch;
pub mod words;
pub mod experiment;
pub mod sabotage;
pub mod proof;
pub mod proved;

use std::path::{Path, PathBuf};

/// The workspace's folder: where it was when this was compiled, and cargo compiles again when it moves.
pub fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.and_then(Path::parent).unwrap_or(Path::new(".")).to_owned()
}
