//! Which program runs an experiment? The answer's own, built from the current code.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use lab::{Answer, child, code::Code, stack::workspace};
use practice::build;
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::group;

/// How the guide gets the programs.
#[derive(Clone, Debug)]
pub enum Programs {
    /// This cargo builds them.
    BuiltBy(OsString),
    /// This executable is the program of every answer.
    This,
}

/// The result of a build.
#[derive(Debug, PartialEq, Eq)]
pub enum Built {
    /// The program, and the hash of the code that it was built from, if that is known.
    Program(PathBuf, Option<String>),
    /// The code does not compile. These are the compiler's messages.
    Refused(String),
    /// The build was stopped.
    Stopped,
}

impl Programs {
    /// Built by the cargo that started this program, or by the one on the path.
    pub fn built() -> Self {
        Self::BuiltBy(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// The program of this answer. What cargo is doing goes to `say`.
    pub async fn of(
        &self,
        answer: &Answer,
        stop: &CancellationToken,
        say: impl Fn(String),
    ) -> anyhow::Result<Built> {
        let folder = Path::new(answer.folder);
        let Self::BuiltBy(cargo) = self else {
            let code = Code::of(folder).ok().filter(Code::is_in_this_program);
            return Ok(Built::Program(child::this_program()?, code.map(|code| code.hash)));
        };
        loop {
            let code = Code::of(folder)?;
            say(format!("building {}", answer.name));
            let program = match build_program(cargo, answer.name, stop, &say).await {
                Err(error) if is_missing(&error) => without_cargo(answer, &code)?,
                Ok(Ok(program)) => program,
                Ok(Err(otherwise)) => return Ok(otherwise),
                Err(error) => return Err(error),
            };
            // The reader may edit during the build. Then it is unknown which code was built, so build again.
            if Code::of(folder)?.hash == code.hash {
                return Ok(Built::Program(program, Some(code.hash)));
            }
        }
    }
}

async fn build_program(
    cargo: &OsString,
    answer: &str,
    stop: &CancellationToken,
    say: impl Fn(String),
) -> anyhow::Result<Result<PathBuf, Built>> {
    let mut command = Command::from(build::this_cargo(cargo, &workspace()));
    command.args(build::words_for(answer));
    command.args(["--color", "never", "--message-format", "json-render-diagnostics"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if let Some(target) = target_folder() {
        command.arg("--target-dir").arg(target);
    }
    let (mut program, mut words) = (None, String::new());
    let ended = group::run(
        &mut command,
        stop,
        |line| program = executable(&line, answer).or(program.take()),
        |line| {
            say(line.trim().to_owned());
            words.push_str(&line);
            words.push('\n');
        },
    );
    let Some(status) = ended.await? else { return Ok(Err(Built::Stopped)) };
    if !status.success() {
        return Ok(Err(Built::Refused(words)));
    }
    Ok(Ok(program.context("cargo built the program and did not say where")?))
}

/// The program's path, if this line of cargo's names it.
fn executable(line: &str, answer: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    (message["target"]["name"] == answer).then(|| message["executable"].as_str().map(Into::into))?
}

/// The target directory that this program was built in, which `--target-dir` may have chosen. Cargo marks each.
fn target_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let mut folders = program.ancestors();
    folders.find(|folder| folder.join("CACHEDIR.TAG").is_file()).map(Path::to_owned)
}

fn is_missing(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The guide itself, which contains every answer as of its own build.
fn without_cargo(answer: &Answer, code: &Code) -> anyhow::Result<PathBuf> {
    if !code.is_in_this_program() {
        bail!(
            "the code of {} was changed after this guide was built, and there is no cargo to build it: \
             install Rust (https://rustup.rs), or put cargo on the PATH",
            answer.name
        );
    }
    child::this_program()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_cargo_says() {
        let line = |name: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}"}},"executable":{executable}}}"#
            )
        };
        assert_eq!(executable(&line("some", r#""/t/some""#), "some"), Some("/t/some".into()));
        assert_eq!(executable(&line("some", "null"), "some"), None, "its library");
        assert_eq!(executable(&line("other", r#""/t/other""#), "some"), None);
        assert_eq!(executable("no JSON", "some"), None);
    }
}
