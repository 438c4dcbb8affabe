//! Does the answer compile? Cargo builds it and says where the programs are. We run them without cargo, so that their
//! time limit does not include waiting for another cargo's lock.

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

/// The result of a build.
#[derive(Debug)]
pub enum Built {
    /// It compiles.
    Programs {
        /// The answer's program; it is built only if it was asked for.
        program: Option<PathBuf>,
        /// Its unit tests; they are built only if they were asked for.
        tests: Option<PathBuf>,
    },
    /// It does not compile. The compiler has said why.
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
            // Cargo may report the same message for the program and for the tests. Show it once.
            if told.insert(message.to_owned()) {
                eprint!("{message}");
            }
        }
        if !status.success() {
            // Cargo failed before the compiler ran, for example because of an invalid manifest.
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

/// The path of the program that cargo has built, from cargo's messages.
pub fn executable(out: &str) -> Option<PathBuf> {
    let mut messages = out.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
    messages.find_map(|it: Value| it["executable"].as_str().map(Into::into))
}

/// The arguments with which cargo builds an answer's program.
///
/// The guide is among the packages, although nothing of it is built: with it the dependencies have the same features as
/// in the guide's build, and are not compiled again.
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
    // Remove the variables that cargo has set for this program. With them, cargo would rebuild dependencies that read
    // such variables, and everything that depends on them.
    for (name, _) in std::env::vars_os() {
        if is_about_this_program(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether cargo sets this variable for a program that it runs. It sets `OUT_DIR` if the program has a build script.
fn is_about_this_program(variable: &str) -> bool {
    variable == "OUT_DIR"
        || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|it| variable.starts_with(it))
}

/// A program that was built, to be run as cargo runs it: with the variables that the workspace's configuration sets.
pub fn program(workspace: &Path, path: &Path) -> Command {
    let mut command = Command::new(path);
    command
        // No backtraces, and no files with proptest's past failures in the reader's folders.
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    let config = std::fs::read_to_string(workspace.join(".cargo/config.toml")).unwrap_or_default();
    let lines = config.lines().skip_while(|line| *line != "[env]").skip(1);
    for line in lines.take_while(|line| !line.starts_with('[')) {
        // `proof` writes plain strings. Other forms, which a reader may have there, are left to cargo.
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
