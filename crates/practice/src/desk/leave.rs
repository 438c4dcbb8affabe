//! How does a reader leave an exercise and keep their code?

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};

use super::{Desk, NONE};
use crate::{
    checkout::{Git, git, same},
    exercise::Exercise,
    progress::Attempt,
};

impl Desk {
    /// Leaves the exercise. A gap that was not filled gets our code back.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        self.change(|desk| {
            let key = desk.progress.current.clone().context(NONE)?;
            let attempt = desk.progress.exercises.get(&key).context("it was started")?;
            let path = desk.place(&key, attempt);
            let now = fs::read_to_string(&path).unwrap_or_default();
            let ours = same(&now, &attempt.gapped) || same(&now, &attempt.original);
            if !ours && git(&desk.workspace, &path) == Git::Changed {
                bail!(
                    "{} has changes that are yours. Keep them with `git commit -am 'my solution'`, or lay \
                     them aside with `git stash`; then reset again",
                    desk.shown(&path)
                );
            }
            desk.leave()?;
            println!("Left {key}.");
            Ok(())
        })
    }

    /// Puts our code back into an untouched gap, and leaves the reader's code in place. If git does not know the file,
    /// keeps a copy of the reader's code and puts ours back.
    pub(super) fn leave(&mut self) -> anyhow::Result<()> {
        let key = self.progress.current.clone().context(NONE)?;
        let attempt = self.progress.exercises.get(&key).cloned().unwrap_or_default();
        let path = self.place(&key, &attempt);
        match fs::read_to_string(&path) {
            Ok(now) if same(&now, &attempt.original) => {}
            Ok(now) if same(&now, &attempt.gapped) => {
                fs::write(&path, &attempt.original).with_context(|| path.display().to_string())?;
            }
            Ok(now) if git(&self.workspace, &path) == Git::Unknown => {
                let kept = self.lay_aside(&key, &now)?;
                fs::write(&path, &attempt.original).with_context(|| path.display().to_string())?;
                println!("Yours is kept as {}.", self.shown(&kept));
            }
            // The reader's code stays; or the file was removed together with its exercise.
            Ok(_) | Err(_) => {}
        }
        if !attempt.done {
            self.progress.exercises.remove(&key);
        }
        self.progress.current = None;
        self.progress.store(&self.workspace)
    }

    /// Keeps a copy of the reader's code, beside earlier copies.
    fn lay_aside(&self, key: &str, text: &str) -> anyhow::Result<PathBuf> {
        for n in 1.. {
            let path = self.workspace.join(format!(".practice/{}-{n}.rs", key.replace('/', "-")));
            if !path.exists() {
                fs::write(&path, text).with_context(|| path.display().to_string())?;
                return Ok(path);
            }
        }
        bail!("there are too many copies of {key} in .practice")
    }

    /// The file with the gap of an exercise. For an exercise that no longer exists, the progress remembers it.
    fn place(&self, key: &str, attempt: &Attempt) -> PathBuf {
        let known = self.exercises.iter().find(|exercise| exercise.key.to_string() == key);
        known.map_or_else(|| self.workspace.join(&attempt.file), Exercise::path)
    }
}
