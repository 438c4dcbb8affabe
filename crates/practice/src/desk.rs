//! How does a reader work on an exercise? On one at a time, directly in the real crate.
//!
//! Invariant: nothing that the reader wrote is ever lost. We overwrite a file only if it is as committed or as we wrote
//! it, or after we have kept a copy.

mod leave;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use similar::TextDiff;

use crate::{
    check::{self, Outcome},
    checkout::{Git, git, same},
    exercise::Exercise,
    gap,
    process::Stop,
    progress::{Attempt, Progress, State},
};

/// The reader at work.
#[derive(Debug)]
pub struct Desk {
    workspace: PathBuf,
    exercises: Vec<Exercise>,
    progress: Progress,
}

impl Desk {
    /// Opens the exercises and the progress of this workspace.
    pub fn open(workspace: PathBuf) -> anyhow::Result<Self> {
        let exercises = Exercise::all(&workspace)?;
        Ok(Self { progress: Progress::load(&workspace)?, workspace, exercises })
    }

    /// The workspace.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// All exercises.
    pub fn exercises(&self) -> &[Exercise] {
        &self.exercises
    }

    /// Changes the progress while holding the lock against other `practice` processes.
    fn change<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let _lock = Progress::lock(&self.workspace)?;
        self.progress = Progress::load(&self.workspace)?;
        work(self)
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
            None => println!("\n{done} of {all} done. cargo practice start ANSWER/NAME"),
        }
    }

    /// Cuts the gap, and shows the task.
    pub fn start(&mut self, key: &str) -> anyhow::Result<()> {
        let exercise = self.named(key)?.clone();
        self.change(|desk| desk.cut(&exercise))?;
        self.show(&exercise);
        Ok(())
    }

    fn cut(&mut self, exercise: &Exercise) -> anyhow::Result<()> {
        let (key, path) = (exercise.key.to_string(), exercise.path());
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if let Some(current) = self.progress.current.clone() {
            let attempt = self.progress.exercises.get(&current);
            if current == key && attempt.is_some_and(|it| it.cut || it.original != text) {
                return Ok(());
            }
            let is_gone = self.named(&current).is_err();
            if current == key {
                // `start` was killed before it cut the gap.
            } else if is_gone || attempt.is_none_or(|attempt| attempt.done) {
                self.leave()?;
            } else {
                bail!(
                    "you are at {current}: finish it with `cargo practice check`, or leave it with \
                     `cargo practice reset`"
                );
            }
        }
        if git(&self.workspace, &path) == Git::Changed {
            bail!(
                "{} has changes, and they may be yours. Keep them with `git commit -am 'my \
                 solution'`, or lay them aside with `git stash`; then start again",
                self.shown(&path)
            );
        }
        let gapped = gap::cut(&text, &exercise.front.gap, &exercise.front.todo)?;
        let attempt = Attempt {
            // Doing an exercise again keeps it marked as done.
            done: self.progress.state(&exercise.key) == State::Done,
            hints: 0,
            file: path.strip_prefix(&self.workspace)?.to_owned(),
            cut: false,
            original: text,
            gapped: gapped.clone(),
        };
        self.progress.exercises.insert(key.clone(), attempt);
        self.progress.current = Some(key.clone());
        self.progress.store(&self.workspace)?;
        fs::write(&path, &gapped).with_context(|| path.display().to_string())?;
        if let Some(attempt) = self.progress.exercises.get_mut(&key) {
            attempt.cut = true;
        }
        self.progress.store(&self.workspace)
    }

    /// Shows the task, and where the gap is.
    pub fn show(&self, exercise: &Exercise) {
        let path = exercise.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().position(|line| line.contains("todo!(")).map_or(1, |at| at + 1);
        println!("{} ({})\n", exercise.front.title, exercise.front.level);
        println!("{}\n", exercise.text);
        println!("The gap: {}:{line}", self.shown(&path));
        println!("Then:    cargo practice check    (--watch; or hint, solution, reset)");
    }

    /// Runs the checks, and prints what is still wrong.
    pub fn check(&mut self, patience: Duration, stop: &Stop) -> anyhow::Result<Outcome> {
        let exercise = self.current()?.clone();
        let key = exercise.key.to_string();
        if self.progress.exercises.get(&key).is_some_and(|attempt| !attempt.cut) {
            bail!("the gap of {key} is not cut yet: `cargo practice start {key}`");
        }
        let tell = |step: &str| println!("  {step} …");
        let outcome = check::run(&self.workspace, &exercise, patience, stop, tell)?;
        match &outcome {
            Outcome::DoesNotCompile => println!("Not yet: it does not compile."),
            Outcome::Stopped => println!("Stopped."),
            Outcome::Fails { check, otherwise, seen } => {
                println!("Not yet: {otherwise}\n\n{check} says:\n{}", indented(seen));
            }
            Outcome::Holds => {
                self.change(|desk| {
                    if let Some(attempt) = desk.progress.exercises.get_mut(&key) {
                        attempt.done = true;
                    }
                    desk.progress.store(&desk.workspace)
                })?;
                println!("Done: every check of {key} holds.");
                println!(
                    "`cargo practice solution` shows ours beside yours.{}",
                    self.keeping(&exercise)
                );
                if let Some(next) = self.next() {
                    println!("The next: cargo practice start {}  ({})", next.key, next.front.title);
                }
            }
        }
        Ok(outcome)
    }

    /// Tells the reader how to keep their solution.
    fn keeping(&self, exercise: &Exercise) -> String {
        let path = self.shown(&exercise.path());
        match git(&self.workspace, &exercise.path()) {
            Git::Changed => format!(
                " Keep yours with `git commit -am 'my solution'`,\nor take ours with `git checkout {path}`."
            ),
            Git::AsCommitted => String::new(),
            Git::Unknown => " Yours is kept when you go on.".to_owned(),
        }
    }

    /// The next exercise: the first after this one that is not done.
    pub fn next(&self) -> Option<&Exercise> {
        let current = self.progress.current.as_deref();
        let is_current =
            |exercise: &Exercise| Some(exercise.key.to_string()) == current.map(Into::into);
        let at = self.exercises.iter().position(is_current).map_or(0, |at| at + 1);
        let (before, after) = self.exercises.split_at(at);
        let mut others = after.iter().chain(before);
        others.find(|it| self.progress.state(&it.key) != State::Done && !is_current(it))
    }

    /// Shows the next hint.
    pub fn hint(&mut self) -> anyhow::Result<()> {
        let exercise = self.current()?.clone();
        let key = exercise.key.to_string();
        self.change(|desk| {
            let attempt = desk.progress.exercises.get_mut(&key).context("it was started")?;
            let hints = &exercise.front.hints;
            let Some(hint) = hints.get(attempt.hints) else {
                println!("That was the last hint. `cargo practice solution` shows ours.");
                return Ok(());
            };
            attempt.hints += 1;
            println!("Hint {} of {}: {hint}", attempt.hints, hints.len());
            desk.progress.store(&desk.workspace)
        })
    }

    /// Shows the difference between the reader's solution and ours.
    pub fn solution(&self) -> anyhow::Result<()> {
        let exercise = self.current()?;
        let path = exercise.path();
        let attempt = self.progress.exercises.get(&exercise.key.to_string());
        let ours = &attempt.context("it was started")?.original;
        let yours = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if same(&yours, ours) {
            println!("Your solution is the same as ours.");
            return Ok(());
        }
        let [yours, ours] = [&yours, ours].map(|text| text.replace("\r\n", "\n"));
        let diff = TextDiff::from_lines(&yours, &ours);
        print!("{}", diff.unified_diff().context_radius(3).header("yours", "ours"));
        Ok(())
    }

    fn named(&self, key: &str) -> anyhow::Result<&Exercise> {
        let found = self.exercises.iter().find(|exercise| exercise.key.to_string() == key);
        found.with_context(|| {
            let (answer, name) = key.rsplit_once('/').unwrap_or(("", key));
            let known: Vec<_> = self.exercises.iter().map(|one| one.key.to_string()).collect();
            let of_this_name = known.iter().filter(|known| known.contains(name));
            let of_this_answer = known.iter().filter(|known| known.starts_with(answer));
            let mut like: Vec<_> = of_this_name.map(String::as_str).collect();
            if like.is_empty() {
                like = of_this_answer.map(String::as_str).collect();
            }
            format!("there is no exercise {key}. Perhaps: {}", like.join(", "))
        })
    }

    /// The reader's current exercise.
    pub fn current(&self) -> anyhow::Result<&Exercise> {
        let key = self.progress.current.as_deref().context(NONE)?;
        self.exercises.iter().find(|exercise| exercise.key.to_string() == key).with_context(|| {
            format!(
                "you are at {key}, but this exercise no longer exists. Start another one, or leave it with `cargo \
                 practice reset`"
            )
        })
    }

    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.workspace).unwrap_or(path).display().to_string()
    }
}

const NONE: &str = "start an exercise first: `cargo practice` lists them";

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests;
