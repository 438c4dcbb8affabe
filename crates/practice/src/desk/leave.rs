//! How does a reader leave an exercise, and keep what they wrote?

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};

use super::{Desk, NONE};
use crate::{
    checkout::{Git, git, same},
    exercise::Exercise,
    progress::Attempt,
};

impl Desk {
    /// Leaves the exercise. What was not filled in is filled with ours.
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

    /// A gap that nobody has touched is filled with ours; what the reader wrote stays. Where git does not keep it, it is
    /// laid aside first, and ours comes back.
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
            // A file that is gone has gone with its exercise.
            Ok(_) | Err(_) => {}
        }
        if !attempt.done {
            self.progress.exercises.remove(&key);
        }
        self.progress.current = None;
        self.progress.store(&self.workspace)
    }

    /// Keeps a text of the reader's, beside those that were kept before.
    fn lay_aside(&self, key: &str, text: &str) -> anyhow::Result<PathBuf> {
        for n in 1.. {
            let path = self.workspace.join(format!(".practice/{}-{n}.rs", key.replace('/', "-")));
            if !path.exists() {
                fs::write(&path, text).with_context(|| path.display().to_string())?;
                return Ok(path);
            }
        }
        bail!("there are too many")
    }

    /// Where the gap of an exercise is. One that is gone has left the place behind.
    fn place(&self, key: &str, attempt: &Attempt) -> PathBuf {
        let known = self.exercises.iter().find(|exercise| exercise.key.to_string() == key);
        known.map_or_else(|| self.workspace.join(&attempt.file), Exercise::path)
    }
}
