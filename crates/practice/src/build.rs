//! Does it compile? Cargo builds the answer, and says where its programs are: they are run without cargo, so that their
//! time is their own, and not that of a lock that another cargo holds.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;
use serde_json::Value;

use crate::process::{self, Ended, Stop};

/// What came of a build.
#[derive(Debug)]
pub enum Built {
    /// It compiles.
    Programs {
        /// The answer's program; it is built only if it was asked for.
        program: Option<PathBuf>,
        /// Its unit tests; they are built only if they were asked for.
        tests: Option<PathBuf>,
    },
    /// It does not; the compiler has said why.
    DoesNotCompile,
    /// The reader has stopped it.
    Stopped,
}

/// Builds an answer's program, its unit tests, or both.
pub fn build(
    workspace: &Path,
    answer: &str,
    program: bool,
    tests: bool,
    stop: &Stop,
) -> anyhow::Result<Built> {
    let mut told = BTreeSet::new();
    let mut found = [None, None];
    let unit_tests = ["test", "--no-run", "--lib", "--package", answer];
    for (n, wanted, words) in [(0, program, &words_for(answer)[..]), (1, tests, &unit_tests[..])] {
        if !wanted {
            continue;
        }
        let mut cargo = cargo(workspace);
        cargo.args(words).arg("--quiet");
        cargo.arg(if std::io::stderr().is_terminal() {
            "--message-format=json-diagnostic-rendered-ansi"
        } else {
            "--message-format=json"
        });
        let (status, out, err) = match process::run(&mut cargo, None, stop)? {
            Ended::Itself { status, out, err } => (status, out, err),
            Ended::Stopped | Ended::TimedOut => return Ok(Built::Stopped),
        };
        let messages: Vec<Value> =
            out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let before = told.len();
        for message in messages.iter().filter_map(|it| it["message"]["rendered"].as_str()) {
            // Each is said of the program and of the tests; once is enough.
            if told.insert(message.to_owned()) {
                eprint!("{message}");
            }
        }
        if !status.success() {
            // A manifest that cannot be read, for example: the compiler did not get so far.
            if told.len() == before {
                eprint!("{err}");
            }
            return Ok(Built::DoesNotCompile);
        }
        found[n] = executable(&out);
        if found[n].is_none() {
            bail!("cargo built {answer} and named no program");
        }
    }
    let [program, tests] = found;
    Ok(Built::Programs { program, tests })
}

/// The program that cargo has built, by what it wrote.
pub fn executable(out: &str) -> Option<PathBuf> {
    let mut messages = out.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
    messages.find_map(|it: Value| it["executable"].as_str().map(Into::into))
}

/// What cargo is told to build an answer's program.
///
/// The guide is among the packages, though nothing of it is built: dependencies then have the features that they were
/// compiled with for the guide, and are not compiled again.
pub fn words_for(answer: &str) -> [&str; 7] {
    ["build", "--package", "guide", "--package", answer, "--bin", answer]
}

/// The cargo that started this program, or the one on the path, in this workspace.
pub fn cargo(workspace: &Path) -> Command {
    this_cargo(&std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), workspace)
}

/// This cargo, in this workspace.
pub fn this_cargo(cargo: &OsStr, workspace: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(workspace);
    // What the cargo that started this program has told it about itself. With that, dependencies whose build asks for
    // it would be compiled again, and all that stands on them.
    for (name, _) in std::env::vars_os() {
        if is_about_this_program(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether cargo sets this variable for the program that it runs: `OUT_DIR` too, if that one has a build script.
fn is_about_this_program(variable: &str) -> bool {
    variable == "OUT_DIR"
        || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|it| variable.starts_with(it))
}

/// A program that was built, to be run as cargo runs it: with the variables that the workspace's configuration sets.
pub fn program(workspace: &Path, path: &Path) -> Command {
    let mut command = Command::new(path);
    command
        // What failed, and not the way there; and no file of past failures among the reader's.
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    let config = std::fs::read_to_string(workspace.join(".cargo/config.toml")).unwrap_or_default();
    let lines = config.lines().skip_while(|line| *line != "[env]").skip(1);
    for line in lines.take_while(|line| !line.starts_with('[')) {
        // `proof` writes plain strings. What else a reader may have there is for cargo alone.
        let Some((name, value)) = line.split_once(" = ") else { continue };
        if let Ok(value) = serde_json::from_str::<String>(value) {
            command.env(name, value);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_what_another_cargo_said_about_the_program_that_starts_it() {
        for variable in ["OUT_DIR", "CARGO_MANIFEST_DIR", "CARGO_PKG_VERSION"] {
            assert!(is_about_this_program(variable), "{variable}");
        }
        for variable in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_INCREMENTAL", "PATH"] {
            assert!(!is_about_this_program(variable), "{variable}");
        }
    }
}
