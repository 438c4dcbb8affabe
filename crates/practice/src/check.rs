//! Does what the reader wrote hold? It has to compile, and then the exercise's checks run on it, the quickest
//! first. One crate is built, not the workspace.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::exercise::{Check, Exercise};

/// An experiment or a test that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(2);

/// How much of a failing test's words is shown.
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
        /// What that means, in the exercise's words.
        otherwise: String,
        /// What was seen.
        seen: String,
    },
}

/// Builds the answer in this workspace and runs the exercise's checks. The compiler's words go to the terminal as
/// they are.
pub fn run(workspace: &Path, exercise: &Exercise) -> anyhow::Result<Outcome> {
    let answer = &exercise.key.answer;
    let needs = |unit: bool| exercise.front.checks.iter().any(|it| it.unit.is_some() == unit);
    for (needed, words) in [
        (needs(false), &["build", "--quiet", "--package", answer][..]),
        (needs(true), &["test", "--quiet", "--no-run", "--lib", "--package", answer][..]),
    ] {
        if needed && !cargo(workspace, words).status().context("cargo cannot be run")?.success() {
            return Ok(Outcome::DoesNotCompile);
        }
    }
    for check in &exercise.front.checks {
        let seen = match (&check.unit, &check.experiment) {
            (Some(test), _) => unit(workspace, answer, test)?,
            (_, Some(words)) => experiment(workspace, answer, words)?,
            _ => None,
        };
        if let Some(seen) = seen {
            let Check { otherwise, .. } = check.clone();
            return Ok(Outcome::Fails { check: check.name().to_owned(), otherwise, seen });
        }
    }
    Ok(Outcome::Holds)
}

/// What the tests of this name say, if one of them fails.
fn unit(workspace: &Path, answer: &str, test: &str) -> anyhow::Result<Option<String>> {
    let words = ["test", "--quiet", "--lib", "--package", answer, "--", test];
    let Some((success, output)) = finish(&mut cargo(workspace, &words))? else {
        return Ok(Some(hangs()));
    };
    if output.contains("running 0 tests") {
        bail!("{answer} has no unit test whose name contains {test}");
    }
    // From the first failure's own words to the list of names, which says nothing new.
    let words = output.split_once("failures:\n").map_or(&*output, |(_, words)| words);
    let words = words.split("\nfailures:\n").next().unwrap_or_default().trim();
    Ok((!success).then(|| last_panic(words)))
}

/// A property says the same of each smaller case that it tries; the last is the smallest, and may be long itself.
fn last_panic(words: &str) -> String {
    let lines: Vec<_> = words.lines().collect();
    let last = lines.iter().rposition(|line| line.contains("panicked at"));
    let from = last.unwrap_or(lines.len().saturating_sub(LINES));
    lines[from..].iter().take(LINES).copied().collect::<Vec<_>>().join("\n")
}

/// What the experiment refutes, if it does.
fn experiment(workspace: &Path, answer: &str, words: &str) -> anyhow::Result<Option<String>> {
    let words: Vec<_> = words.split(' ').filter(|word| !word.is_empty()).collect();
    let before = ["run", "--quiet", "--package", answer, "--", "experiment"];
    let words = [&before[..], &words, &["--json"]].concat();
    let Some((_, output)) = finish(&mut cargo(workspace, &words))? else {
        return Ok(Some(hangs()));
    };
    let report: Value = output
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("`cargo {}` reported nothing:\n{output}", words.join(" ")))?;
    if let Some(why) = report["skipped"].as_str() {
        bail!("it cannot be tried here: {why}");
    }
    if let Some(error) = report["error"].as_str() {
        return Ok(Some(format!("it broke off: {error}")));
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
    Ok((!failed.is_empty()).then(|| failed.join("\n")))
}

fn hangs() -> String {
    format!("it did not end within {} minutes", PATIENCE.as_secs() / 60)
}

fn cargo(workspace: &Path, words: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(words)
        .current_dir(workspace)
        // What failed, and not the way there; and no file of past failures among the reader's.
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    command
}

/// Whether it succeeded, and all that it wrote; nothing if it had to be killed.
fn finish(command: &mut Command) -> anyhow::Result<Option<(bool, String)>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cargo cannot be run")?;
    let (out, err) = (child.stdout.take().context("piped")?, child.stderr.take().context("piped")?);
    let [out, err] = [Box::new(out) as Box<dyn Read + Send>, Box::new(err)].map(|mut pipe| {
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    };
    let [out, err] = [out, err].map(|text| text.join().unwrap_or_default());
    Ok(Some((status.success(), out + &err)))
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
