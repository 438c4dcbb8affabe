//! How does a reader work at an exercise? One at a time, in place, in the real crate.
//!
//! Invariant: nothing that the reader wrote is ever overwritten. A file is written only while it is as git or
//! as we left it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use similar::TextDiff;

use crate::{
    check::{self, Outcome},
    exercise::Exercise,
    gap,
    progress::{Attempt, Progress, State},
};

/// How often `--watch` looks whether a file was saved.
const LOOK: Duration = Duration::from_millis(300);

/// The reader at work.
#[derive(Debug)]
pub struct Desk {
    workspace: PathBuf,
    exercises: Vec<Exercise>,
    progress: Progress,
}

impl Desk {
    /// In this workspace.
    pub fn open(workspace: PathBuf) -> anyhow::Result<Self> {
        let exercises = Exercise::all(&workspace)?;
        Ok(Self { progress: Progress::load(&workspace)?, workspace, exercises })
    }

    /// The workspace.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Every exercise there is.
    pub fn exercises(&self) -> &[Exercise] {
        &self.exercises
    }

    /// Shows the exercises, and how far the reader is with each.
    pub fn list(&self) {
        let mut answer = "";
        for exercise in &self.exercises {
            if answer != exercise.key.answer {
                answer = &exercise.key.answer;
                println!("{answer}");
            }
            let mark = match self.progress.state(&exercise.key) {
                State::Done => "✓",
                State::Started => "…",
                State::Open => " ",
            };
            let (name, level) = (&exercise.key.name, &exercise.front.level);
            println!("  {mark} {name:<24} {level:<12} {}", exercise.front.title);
        }
        let done = |exercise: &&Exercise| self.progress.state(&exercise.key) == State::Done;
        let (done, all) = (self.exercises.iter().filter(done).count(), self.exercises.len());
        match &self.progress.current {
            Some(current) => println!("\n{done} of {all} done. You are at {current}."),
            None => println!("\n{done} of {all} done. cargo run -- practice start ANSWER/NAME"),
        }
    }

    /// Cuts the gap.
    pub fn start(&mut self, key: &str) -> anyhow::Result<()> {
        let exercise = self.named(key)?.clone();
        if let Some(current) = self.progress.current.as_deref() {
            if current == key {
                self.show(&exercise);
                return Ok(());
            }
            match self.progress.exercises.get(current) {
                Some(attempt) if attempt.done => self.leave()?,
                _ => bail!(
                    "you are at {current}: finish it with `practice check`, or leave it with \
                     `practice reset`"
                ),
            }
        }
        let path = exercise.path();
        let original = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if !self.is_as_committed(&path)? {
            bail!(
                "{} has changes, and they may be yours. Keep them with `git commit -am 'my \
                 solution'`, or lay them aside with `git stash`; then start again",
                self.shown(&path)
            );
        }
        let gapped = gap::cut(&original, &exercise.front.gap, &exercise.front.todo)?;
        fs::write(&path, &gapped).with_context(|| path.display().to_string())?;
        // Whoever does it once more has done it nevertheless.
        let done = self.progress.state(&exercise.key) == State::Done;
        let attempt = Attempt { done, hints: 0, original, gapped };
        self.progress.exercises.insert(key.to_owned(), attempt);
        self.progress.current = Some(key.to_owned());
        self.progress.store(&self.workspace)?;
        self.show(&exercise);
        Ok(())
    }

    fn show(&self, exercise: &Exercise) {
        let path = exercise.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().position(|line| line.contains("todo!(")).map_or(1, |at| at + 1);
        println!("{} ({})\n", exercise.front.title, exercise.front.level);
        println!("{}\n", exercise.text);
        println!("The gap: {}:{line}", self.shown(&path));
        println!("Then:    cargo run -- practice check    (--watch; or hint, solution, reset)");
    }

    /// Says what is still wrong, if anything is.
    pub fn check(&mut self) -> anyhow::Result<bool> {
        let exercise = self.current()?.clone();
        match check::run(&self.workspace, &exercise)? {
            Outcome::DoesNotCompile => Ok(false),
            Outcome::Fails { check, otherwise, seen } => {
                println!("Not yet: {otherwise}\n\n{check} says:\n{}", indented(&seen));
                Ok(false)
            }
            Outcome::Holds => {
                let key = exercise.key.to_string();
                if let Some(attempt) = self.progress.exercises.get_mut(&key) {
                    attempt.done = true;
                }
                self.progress.store(&self.workspace)?;
                println!(
                    "Done: every check of {key} holds.\n`practice solution` shows ours beside yours. Keep \
                     yours with `git commit -am 'my solution'`, or take ours with `git checkout {}`; then start \
                     the next.",
                    self.shown(&exercise.path())
                );
                Ok(true)
            }
        }
    }

    /// Checks again each time that a file is saved, until it holds.
    pub fn watch(&mut self) -> anyhow::Result<ExitCode> {
        let folder = self.current()?.folder.join("src");
        loop {
            let seen = newest(&folder);
            if self.check()? {
                return Ok(ExitCode::SUCCESS);
            }
            println!("\nWaiting for a file to be saved …");
            while newest(&folder) == seen {
                thread::sleep(LOOK);
            }
        }
    }

    /// Shows the next hint.
    pub fn hint(&mut self) -> anyhow::Result<()> {
        let exercise = self.current()?.clone();
        let key = exercise.key.to_string();
        let attempt = self.progress.exercises.get_mut(&key).context("it was started")?;
        let hints = &exercise.front.hints;
        let Some(hint) = hints.get(attempt.hints) else {
            println!("That was the last hint. `practice solution` shows ours.");
            return Ok(());
        };
        attempt.hints += 1;
        println!("Hint {} of {}: {hint}", attempt.hints, hints.len());
        self.progress.store(&self.workspace)
    }

    /// Shows what differs between the reader's and ours.
    pub fn solution(&self) -> anyhow::Result<()> {
        let exercise = self.current()?;
        let path = exercise.path();
        let attempt = self.progress.exercises.get(&exercise.key.to_string());
        let ours = &attempt.context("it was started")?.original;
        let yours = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if yours == *ours {
            println!("Yours is ours, letter by letter.");
            return Ok(());
        }
        let diff = TextDiff::from_lines(&yours, ours);
        print!("{}", diff.unified_diff().context_radius(3).header("yours", "ours"));
        Ok(())
    }

    /// Leaves the exercise. What was not filled in is filled with ours.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        let key = self.current()?.key.to_string();
        let attempt = self.progress.exercises.get(&key).context("it was started")?;
        let path = self.current()?.path();
        let now = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let ours = now == attempt.gapped || now == attempt.original;
        if !ours && !self.is_as_committed(&path)? {
            bail!(
                "{} has changes that are yours. Keep them with `git commit -am 'my solution'`, or lay \
                 them aside with `git stash`; then reset again",
                self.shown(&path)
            );
        }
        self.leave()?;
        println!("Left {key}.");
        Ok(())
    }

    /// A gap that nobody has touched is filled with ours; everything else stays as it is.
    fn leave(&mut self) -> anyhow::Result<()> {
        let key = self.current()?.key.to_string();
        let path = self.current()?.path();
        let attempt = self.progress.exercises.get(&key).context("it was started")?;
        if fs::read_to_string(&path).is_ok_and(|now| now == attempt.gapped) {
            fs::write(&path, &attempt.original).with_context(|| path.display().to_string())?;
        }
        if !attempt.done {
            self.progress.exercises.remove(&key);
        }
        self.progress.current = None;
        self.progress.store(&self.workspace)
    }

    fn named(&self, key: &str) -> anyhow::Result<&Exercise> {
        let found = self.exercises.iter().find(|exercise| exercise.key.to_string() == key);
        found.with_context(|| {
            let last = key.rsplit('/').next().unwrap_or_default();
            let like = self.exercises.iter().map(|exercise| exercise.key.to_string());
            let like: Vec<_> = like.filter(|known| known.contains(last)).collect();
            format!("there is no exercise {key}. Perhaps: {}", like.join(", "))
        })
    }

    fn current(&self) -> anyhow::Result<&Exercise> {
        let current = self.progress.current.as_deref();
        self.named(current.context("start an exercise first: `practice` lists them")?)
    }

    /// Whether nobody has changed the file since the last commit.
    fn is_as_committed(&self, path: &Path) -> anyhow::Result<bool> {
        let status = Command::new("git")
            .args(["diff", "--quiet", "HEAD", "--"])
            .arg(path)
            .current_dir(&self.workspace)
            .status()
            .context("git cannot be run, and only git knows which changes are yours")?;
        Ok(status.success())
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.workspace).unwrap_or(path).display().to_string()
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// When a file below this folder was last saved.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?;
    let times = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        if path.is_dir() { newest(&path) } else { entry.metadata().ok()?.modified().ok() }
    });
    times.max()
}

#[cfg(test)]
mod tests;
