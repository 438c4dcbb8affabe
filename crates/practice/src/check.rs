//! Is the reader's code right? It has to compile, and then the exercise's checks run on it, the quickest first. Only
//! one crate is built, not the workspace.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    build::{Built, build, program},
    exercise::{Check, Exercise},
    process::{self, Ended, Stop},
};

/// An experiment or a test that takes longer counts as hanging. Building and starting servers do not count.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How many lines of a failing test's output are shown.
const LINES: usize = 15;

/// How a check of an exercise ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything holds.
    Holds,
    /// The compiler has said why not.
    DoesNotCompile,
    /// The first check that failed.
    Fails {
        /// Its name.
        check: String,
        /// The exercise's explanation of this failure.
        otherwise: String,
        /// What the check saw.
        seen: String,
    },
    /// The reader has stopped it.
    Stopped,
}

/// Builds the answer in this workspace and runs the exercise's checks, until the reader stops it. The compiler's
/// messages go to the terminal unchanged. Calls `tell` before each step.
pub fn run(
    workspace: &Path,
    exercise: &Exercise,
    patience: Duration,
    stop: &Stop,
    tell: impl Fn(&str),
) -> anyhow::Result<Outcome> {
    let answer = &exercise.key.answer;
    let needs = |unit: bool| exercise.front.checks.iter().any(|it| it.unit.is_some() == unit);
    let (program, tests) = (needs(false), needs(true));
    let what = match (program, tests) {
        (true, true) => "program and unit tests",
        (true, false) => "program",
        (false, _) => "unit tests",
    };
    tell(&format!("building {answer}: {what} (the first time, this takes minutes)"));
    let (program, tests) = match build(workspace, answer, program, tests, stop)? {
        Built::Programs { program, tests } => (program, tests),
        Built::DoesNotCompile => return Ok(Outcome::DoesNotCompile),
        Built::Stopped => return Ok(Outcome::Stopped),
    };
    let running = Running { workspace, exercise, patience, stop };
    for check in &exercise.front.checks {
        let seen = if let (Some(test), Some(path)) = (&check.unit, &tests) {
            tell(&format!("test {test}"));
            running.unit(path, test)?
        } else if let (Some(words), Some(path)) = (&check.experiment, &program) {
            tell(&format!("experiment {words}"));
            running.experiment(path, words)?
        } else {
            bail!("a check is either a unit test or an experiment");
        };
        match seen {
            Seen::Holds => {}
            Seen::Stopped => return Ok(Outcome::Stopped),
            Seen::Fails(seen) => {
                let Check { otherwise, .. } = check.clone();
                return Ok(Outcome::Fails { check: check.name().to_owned(), otherwise, seen });
            }
        }
    }
    Ok(Outcome::Holds)
}

/// What a test or an experiment showed.
enum Seen {
    Holds,
    Fails(String),
    Stopped,
}

/// The settings with which the checks of an exercise run.
struct Running<'a> {
    workspace: &'a Path,
    exercise: &'a Exercise,
    patience: Duration,
    stop: &'a Stop,
}

impl Running<'_> {
    /// Runs the unit tests of this name.
    fn unit(&self, path: &Path, test: &str) -> anyhow::Result<Seen> {
        let mut command = program(self.workspace, path);
        // In the answer's folder, as cargo does.
        command.current_dir(&self.exercise.folder).arg("--quiet").arg(test);
        let (status, output) = match process::run(&mut command, Some(self.patience), self.stop)? {
            Ended::Itself { status, out, err } => (status, out + &err),
            Ended::TimedOut => return Ok(Seen::Fails(hangs(self.patience))),
            Ended::Stopped => return Ok(Seen::Stopped),
        };
        if output.contains("running 0 tests") {
            bail!("{} has no unit test whose name contains {test}", self.exercise.key.answer);
        }
        // From the first failure's message to the list of names, which adds nothing.
        let words = output.split_once("failures:\n").map_or(&*output, |(_, words)| words);
        let words = words.split("\nfailures:\n").next().unwrap_or_default().trim();
        Ok(if status.success() { Seen::Holds } else { Seen::Fails(last_panic(words)) })
    }

    /// Runs an experiment.
    fn experiment(&self, path: &Path, words: &str) -> anyhow::Result<Seen> {
        // The time to find, start or install the servers does not count as time of the experiment.
        let mut servers = program(self.workspace, path);
        servers.current_dir(self.workspace).args(["stack", "up"]);
        match process::run(&mut servers, None, self.stop)? {
            Ended::Stopped => return Ok(Seen::Stopped),
            // If a server is missing and the experiment needs it, the experiment says so.
            Ended::Itself { .. } | Ended::TimedOut => {}
        }
        let mut command = program(self.workspace, path);
        let words = words.split(' ').filter(|word| !word.is_empty());
        command.current_dir(self.workspace).arg("experiment").args(words).arg("--json");
        let output = match process::run(&mut command, Some(self.patience), self.stop)? {
            Ended::Itself { out, err, .. } => out + &err,
            Ended::TimedOut => return Ok(Seen::Fails(hangs(self.patience))),
            Ended::Stopped => return Ok(Seen::Stopped),
        };
        let report = output.lines().find_map(|line| serde_json::from_str(line).ok());
        refuted(&report.with_context(|| format!("the experiment reported nothing:\n{output}"))?)
    }
}

/// Reads a report: which checks failed, if any.
fn refuted(report: &Value) -> anyhow::Result<Seen> {
    if let Some(why) = report["skipped"].as_str() {
        bail!("it cannot be tried here: {why}");
    }
    if let Some(error) = report["error"].as_str() {
        return Ok(Seen::Fails(format!("it broke off: {error}")));
    }
    let checks = report["checks"].as_array().context("a report without checks")?;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check["held"] != true)
        .map(|check| {
            let words = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
            format!("{}: expected {}, seen {}", words("check"), words("expected"), words("seen"))
        })
        .collect();
    Ok(if failed.is_empty() { Seen::Holds } else { Seen::Fails(failed.join("\n")) })
}

/// The last panic of a test's output. A failing property panics for each smaller case that it tries. The last case is
/// the smallest, but its message may still be long.
fn last_panic(words: &str) -> String {
    let lines: Vec<_> = words.lines().collect();
    let last = lines.iter().rposition(|line| line.contains("panicked at"));
    let from = last.unwrap_or(lines.len().saturating_sub(LINES));
    lines[from..].iter().take(LINES).copied().collect::<Vec<_>>().join("\n")
}

fn hangs(patience: Duration) -> String {
    format!("it did not end within {} s", patience.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_property_that_failed_the_last_panic_is_shown_from_its_beginning() {
        let long = "        12593,\n".repeat(40);
        let words = format!(
            "thread 'a' panicked at x.rs:1:\nfirst\nthread 'a' panicked at x.rs:2:\nlast\n{long}"
        );
        let shown = last_panic(&words);
        assert!(shown.starts_with("thread 'a' panicked at x.rs:2:\nlast\n"), "{shown}");
        assert_eq!(shown.lines().count(), LINES);
        assert_eq!(last_panic("linking failed"), "linking failed");
    }
}
