//! Can each experiment fail? It names at least one sabotage: a mistake in the answer's code, and the check that it
//! turns red. Here we make the mistake in a copy of the workspace, and this check has to fail, in a run that ends
//! without an error.
//!
//! We do not try the experiment with the real code again: the answer's tests do that, with the same parameters.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    build::{cargo, executable, program, words_for},
    process::{self, Ended, Stop},
};

/// A sabotaged run that takes longer counts as hanging.
const PATIENCE: Duration = Duration::from_secs(90);

/// How many lines of a failed command's output are shown.
const LINES: usize = 15;

/// An experiment, as its answer's `list --json` shows it.
#[derive(Debug, Deserialize)]
struct Experiment {
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

/// The part of a report that we read.
#[derive(Debug, Deserialize)]
struct Report {
    seconds: f64,
    checks: Vec<Checked>,
    skipped: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Checked {
    check: String,
    expected: String,
    seen: String,
    held: bool,
}

/// An answer in the copy of the workspace.
#[derive(Debug)]
pub struct Answer<'a> {
    copy: &'a Path,
    name: &'a str,
    experiments: Vec<Experiment>,
    stop: &'a Stop,
}

impl<'a> Answer<'a> {
    /// Builds it, and asks it for its sabotages.
    pub fn build(copy: &'a Path, name: &'a str, stop: &'a Stop) -> anyhow::Result<Self> {
        let mut this = Self { copy, name, experiments: Vec::new(), stop };
        let program = this.build_again()?;
        #[derive(Deserialize)]
        struct Listed {
            experiments: Vec<Experiment>,
        }
        let [Listed { experiments }] = json(&this.say(&program, &["list", "--json"])?)?;
        this.experiments = experiments;
        // Starting the servers must not count as time of the first run.
        this.say(&program, &["stack", "up"])?;
        Ok(this)
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.copy.join("crates").join(self.name)
    }

    /// Checks that each sabotage of this experiment turns its check red. The error names the first that does not.
    pub fn prove(&self, experiment: &str) -> anyhow::Result<()> {
        let found = self.experiments.iter().find(|it| it.name == experiment);
        let found = found.context("its answer does not list it")?;
        ensure!(!found.sabotages.is_empty(), "it names no sabotage");
        for sabotage in &found.sabotages {
            let begun = Instant::now();
            let seconds = self
                .prove_one(found, sabotage)
                .with_context(|| format!("{:?} did not turn red", sabotage.check))?;
            println!(
                "{}/{experiment}: {:?} turned red in {seconds:.1} s, with the build {} s",
                self.name,
                sabotage.check,
                begun.elapsed().as_secs()
            );
        }
        Ok(())
    }

    /// Makes the change, runs the experiment, and takes the change back. Returns how many seconds the run took.
    fn prove_one(&self, experiment: &Experiment, sabotage: &Sabotage) -> anyhow::Result<f64> {
        let Sabotage { file, replace, with, check } = sabotage;
        let place = self.folder().join(file);
        let real = fs::read_to_string(&place).with_context(|| place.display().to_string())?;
        let found = real.matches(replace).count();
        ensure!(found == 1, "{file} has {replace:?} {found} times, not once");
        fs::write(&place, real.replacen(replace, with, 1))?;
        let report = self.build_again().and_then(|program| {
            let quick = experiment.quick.iter().map(String::as_str);
            let words = ["experiment", &experiment.name, "--json"].into_iter().chain(quick);
            json::<Report>(&self.say(&program, &words.collect::<Vec<_>>())?)
        });
        fs::write(&place, real)?;
        let report = report?;
        report.is_red(check).map(|()| report.seconds)
    }

    /// Builds the program from the current code of the copy.
    fn build_again(&self) -> anyhow::Result<PathBuf> {
        let mut cargo = cargo(self.copy);
        cargo.args(words_for(self.name));
        // The mistake may cause warnings about unused code. They are shown only if the code does not compile.
        cargo.args(["--quiet", "--message-format", "json-render-diagnostics"]);
        match process::run(&mut cargo, None, self.stop)? {
            Ended::Itself { status, out, .. } if status.success() => {
                executable(&out).context("cargo named no program")
            }
            Ended::Itself { err, .. } => bail!("{err}"),
            Ended::TimedOut | Ended::Stopped => bail!("it was stopped"),
        }
    }

    /// Runs the program with these arguments and returns its output.
    fn say(&self, path: &Path, words: &[&str]) -> anyhow::Result<String> {
        output(program(self.copy, path).args(words).current_dir(self.copy), PATIENCE, self.stop)
    }
}

impl Report {
    /// Checks that this check failed. The error says what was seen instead.
    fn is_red(&self, check: &str) -> anyhow::Result<()> {
        if let Some(why) = &self.skipped {
            bail!("it cannot be tried here: {why}");
        }
        // A reader who tries the sabotage has to see a verdict.
        if let Some(error) = &self.error {
            let was_red = self.checks.iter().any(|it| it.check == check && !it.held);
            bail!("the run broke off{}: {error}", if was_red { " after it was red" } else { "" });
        }
        let red: Vec<_> = self.checks.iter().filter(|it| !it.held).collect();
        if red.iter().any(|it| it.check == check) {
            return Ok(());
        }
        let mut words: Vec<_> = red
            .iter()
            .map(|it| format!("{:?} did: expected {}, seen {}", it.check, it.expected, it.seen))
            .collect();
        if !self.checks.iter().any(|it| it.check == check) {
            words.push("no check of this name was made".to_owned());
        }
        if words.is_empty() {
            words.push("every check held".to_owned());
        }
        bail!("{}", words.join("; "))
    }
}

/// The first line of the output that is the wanted JSON.
fn json<T: DeserializeOwned>(output: &str) -> anyhow::Result<T> {
    let found = output.lines().find_map(|line| serde_json::from_str(line).ok());
    let last = output.lines().rev().take(LINES).collect::<Vec<_>>();
    found.with_context(|| {
        format!("it reported nothing:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    })
}

/// Everything that the command writes. If it does not end in time, it is killed with everything that it started.
fn output(command: &mut Command, patience: Duration, stop: &Stop) -> anyhow::Result<String> {
    match process::run(command, Some(patience), stop)? {
        Ended::Itself { out, err, .. } => Ok(out + &err),
        Ended::TimedOut => bail!("it did not end within {} s", patience.as_secs()),
        Ended::Stopped => bail!("it was stopped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_killed_with_what_it_started() {
        let begun = Instant::now();
        let mut hangs = Command::new("sh");
        hangs.args(["-c", "sleep 60 & echo $! >&2; wait"]);
        let error = output(&mut hangs, Duration::from_millis(200), &Stop::default()).unwrap_err();
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

    #[test]
    fn a_check_is_red_only_if_that_very_check_failed_and_the_run_did_not_break_off() {
        let check = |check: &str, held| Checked {
            check: check.to_owned(),
            expected: "1".to_owned(),
            seen: "2".to_owned(),
            held,
        };
        let checks = vec![check("ours", true), check("theirs", false)];
        let mut report = Report { seconds: 1.0, checks, skipped: None, error: None };
        assert!(report.is_red("theirs").is_ok());
        let error = |report: &Report, check| report.is_red(check).unwrap_err().to_string();
        assert_eq!(error(&report, "ours"), "\"theirs\" did: expected 1, seen 2");
        assert!(error(&report, "nobody's").contains("no check of this name"));
        report.error = Some("cut".to_owned());
        assert_eq!(error(&report, "theirs"), "the run broke off after it was red: cut");
        assert_eq!(error(&report, "ours"), "the run broke off: cut");
    }
}
