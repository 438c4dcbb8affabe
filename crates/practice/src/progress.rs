//! How far is the reader? `.practice/progress.json` remembers it. Git ignores this file, so it survives a restart, a
//! `git pull` and a `cargo clean`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::exercise::Key;

/// What is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The reader's current exercise.
    pub current: Option<String>,
    /// Every exercise that was ever started, by its key.
    #[serde(default)]
    pub exercises: BTreeMap<String, Attempt>,
}

/// An exercise that was started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Attempt {
    /// Whether its checks have held.
    pub done: bool,
    /// How many hints were shown.
    pub hints: usize,
    /// The file, from the workspace's folder. It is missing if an older `practice` has written this.
    #[serde(default)]
    pub file: PathBuf,
    /// Whether the gap was cut. The attempt is stored before the cut, so that a crash in between does not lose the
    /// original.
    #[serde(default = "yes")]
    pub cut: bool,
    /// The file as it was: our solution.
    pub original: String,
    /// The file with the gap, as we wrote it.
    pub gapped: String,
}

fn yes() -> bool {
    true
}

/// How far one exercise is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never started, or given up.
    Open,
    /// Started, and not done.
    Started,
    /// Its checks have held.
    Done,
}

impl State {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Started => "started",
            Self::Done => "done",
        }
    }
}

impl Progress {
    /// Reads the progress of this workspace. Without a file, it is empty.
    pub fn load(workspace: &Path) -> anyhow::Result<Self> {
        let path = path(workspace);
        if !path.exists() {
            return Ok(Self::default());
        }
        let read = || anyhow::Ok(serde_json::from_slice(&fs::read(&path)?)?);
        read().with_context(|| format!("{} cannot be read", path.display()))
    }

    /// Waits until no other `practice` changes anything in this workspace. Other processes wait as long as the returned
    /// file is open.
    pub fn lock(workspace: &Path) -> anyhow::Result<File> {
        let path = path(workspace).with_extension("lock");
        let lock = || {
            fs::create_dir_all(path.parent().context("a folder")?)?;
            let file = File::create(&path)?;
            file.lock()?;
            anyhow::Ok(file)
        };
        lock().with_context(|| format!("cannot lock {}", path.display()))
    }

    /// Writes the progress.
    pub fn store(&self, workspace: &Path) -> anyhow::Result<()> {
        let path = path(workspace);
        let unfinished = path.with_extension("new");
        let write = || {
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
            // Renamed at the end, so that no process reads half of it.
            anyhow::Ok(fs::rename(&unfinished, &path)?)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// How far this exercise is.
    pub fn state(&self, key: &Key) -> State {
        match self.exercises.get(&key.to_string()) {
            Some(attempt) if attempt.done => State::Done,
            Some(_) => State::Started,
            None => State::Open,
        }
    }
}

fn path(workspace: &Path) -> PathBuf {
    workspace.join(".practice/progress.json")
}
