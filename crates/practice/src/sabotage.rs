//! Can each experiment fail? It names at least one sabotage: a mistake in the answer's code, and the check that it
//! turns red. Here the mistake is made in a copy of the workspace, and that very check has to fail.
//!
//! Whether the experiment holds with the real code is not asked again: the answer's tests do that, with the same
//! parameters.

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, de::DeserializeOwned};

use crate::experiment::Experiment;

/// A sabotaged run that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// How much is shown of what a failed command wrote.
const LINES: usize = 15;

/// An experiment as its answer's `list --json` shows it.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    quick: Vec<String>,
    sabotages: Vec<Sabotage>,
}

#[derive(Debug, Deserialize)]
struct Sabotage {
    file: String,
    replace: String,
    with: String,
    check: String,
}

/// What is read of a report.
#[derive(Debug, Deserialize)]
struct Report {
    seconds: f64,
    checks: Vec<Check>,
    skipped: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Check {
    check: String,
    expected: String,
    seen: String,
    held: bool,
}

/// Sees the sabotages of these experiments, all of one answer, turn their checks red. Returns those that are proved.
pub fn prove(copy: &Path, experiments: &[Experiment]) -> anyhow::Result<Vec<Experiment>> {
    let answer = &experiments.first().context("no experiment")?.key.answer;
    build(copy, answer)?;
    let listed = list(copy, answer)?;
    // What the servers need to start does not count as time of the first run.
    output(&mut answer_words(copy, answer, &["stack", "up"]), PATIENCE)?;
    let mut proved = Vec::new();
    for experiment in experiments {
        let Some(known) = listed.iter().find(|it| it.name == experiment.key.name) else {
            println!("{}: {answer} does not list it", experiment.key);
            continue;
        };
        if known.sabotages.is_empty() {
            println!("{}: it names no sabotage", experiment.key);
            continue;
        }
        let mut good = true;
        for sabotage in &known.sabotages {
            let begun = Instant::now();
            match prove_one(copy, answer, known, sabotage) {
                Ok(seconds) => println!(
                    "{}: {:?} turned red in {seconds:.1} s, with the build {} s",
                    experiment.key,
                    sabotage.check,
                    begun.elapsed().as_secs()
                ),
                Err(error) => {
                    good = false;
                    println!(
                        "{}: {:?} did not turn red: {error:#}",
                        experiment.key, sabotage.check
                    );
                }
            }
        }
        if good {
            proved.push(experiment.clone());
        }
    }
    Ok(proved)
}

/// Makes the change, runs the experiment, and takes the change back. Returns how many seconds the run took.
fn prove_one(
    copy: &Path,
    answer: &str,
    experiment: &Listed,
    sabotage: &Sabotage,
) -> anyhow::Result<f64> {
    let place = copy.join("crates").join(answer).join(&sabotage.file);
    let real = fs::read_to_string(&place).with_context(|| place.display().to_string())?;
    let found = real.matches(&sabotage.replace).count();
    ensure!(found == 1, "{} has {:?} {found} times, not once", sabotage.file, sabotage.replace);
    fs::write(&place, real.replacen(&sabotage.replace, &sabotage.with, 1))?;
    let report = build(copy, answer).and_then(|()| run(copy, answer, experiment));
    fs::write(&place, real)?;
    let report = report?;
    if let Some(why) = report.skipped {
        bail!("it cannot be tried here: {why}");
    }
    let is_red = |it: &&Check| !it.held;
    if report.checks.iter().filter(is_red).any(|it| it.check == sabotage.check) {
        return Ok(report.seconds);
    }
    let red = report.checks.iter().filter(is_red);
    let mut words: Vec<_> = red
        .map(|Check { check, expected, seen, .. }| {
            format!("{check:?} did: expected {expected}, seen {seen}")
        })
        .collect();
    if !report.checks.iter().any(|it| it.check == sabotage.check) {
        words.push("no check of this name was made".to_owned());
    }
    words.extend(report.error.map(|error| format!("the run broke off: {error}")));
    if words.is_empty() {
        words.push("every check held".to_owned());
    }
    bail!("{}", words.join("; "));
}

fn build(copy: &Path, answer: &str) -> anyhow::Result<()> {
    let words = ["build", "--quiet", "--package", answer];
    // The compiler warns of what the mistake leaves unused; that is shown only if it does not compile.
    let output = cargo(copy, &words).output().context("cargo cannot be run")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn list(copy: &Path, answer: &str) -> anyhow::Result<Vec<Listed>> {
    #[derive(Deserialize)]
    struct Answer {
        experiments: Vec<Listed>,
    }
    let [Answer { experiments }] =
        json(&output(&mut answer_words(copy, answer, &["list", "--json"]), PATIENCE)?)?;
    Ok(experiments)
}

fn run(copy: &Path, answer: &str, experiment: &Listed) -> anyhow::Result<Report> {
    let quick = experiment.quick.iter().map(String::as_str);
    let words: Vec<_> =
        ["experiment", &experiment.name, "--json"].into_iter().chain(quick).collect();
    json(&output(&mut answer_words(copy, answer, &words), PATIENCE)?)
}

/// The object among what was written.
fn json<T: DeserializeOwned>(output: &str) -> anyhow::Result<T> {
    let found = output.lines().find_map(|line| serde_json::from_str(line).ok());
    let last = output.lines().rev().take(LINES).collect::<Vec<_>>();
    found.with_context(|| {
        format!("it reported nothing:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    })
}

/// A word of an answer that is built.
fn answer_words(copy: &Path, answer: &str, words: &[&str]) -> Command {
    cargo(copy, &[&["run", "--quiet", "--package", answer, "--"], words].concat())
}

fn cargo(copy: &Path, words: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).current_dir(copy).stdin(Stdio::null());
    command
}

/// All that the command writes. If it does not end in time, it is killed with everything that it started.
fn output(command: &mut Command, patience: Duration) -> anyhow::Result<String> {
    let mut child = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cargo cannot be run")?;
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().context("piped")?),
        Box::new(child.stderr.take().context("piped")?),
    ];
    let written = pipes.map(|mut pipe| {
        thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    let deadline = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            kill_process_group(Pid::from_child(&child), Signal::KILL)?;
            child.wait()?;
            bail!("it did not end within {} s", patience.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(written.map(|text| text.join().unwrap_or_default()).concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_killed_with_what_it_started() {
        let begun = Instant::now();
        let mut hangs = Command::new("sh");
        hangs.args(["-c", "sleep 60 & echo $! >&2; wait"]);
        let error = output(&mut hangs, Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn of_what_was_written_the_json_is_read_or_the_end_is_shown() {
        let report: Report = json("a warning\n{\"seconds\":1.5,\"checks\":[]}\nanother\n").unwrap();
        assert!(report.checks.is_empty() && report.error.is_none());
        let error = json::<Report>(&"line\n".repeat(100)).unwrap_err().to_string();
        assert_eq!(error.lines().count(), LINES + 1);
    }
}
