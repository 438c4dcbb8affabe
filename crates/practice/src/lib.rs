//! How does a reader extend the answers and check the result? By exercises: gaps cut from the real code, which the
//! reader fills in place, and which the code's own tests and experiments check.
//!
//! In reading order: an [`exercise`] says what is cut and which checks must pass, [`gap`] cuts it, [`progress`]
//! remembers how far the reader is, and [`checkout`] knows whether the reader changed a file. [`process`] runs a
//! program to its end, [`mod@build`] builds an answer, and [`check`] checks the reader's code. [`desk`] leads the
//! reader through an exercise; [`keys`] and [`watch`] do so without commands; [`words`] holds the commands. [`proof`]
//! shows that the checks of every exercise work, and that every [`experiment`] can fail, by its [`sabotage`]s;
//! [`proved`] remembers what was proved.

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

/// The workspace's folder when this was compiled. Cargo compiles again if the folder moves.
pub fn workspace() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    crates.and_then(Path::parent).unwrap_or(Path::new(".")).to_owned()
}
