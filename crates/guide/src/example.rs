//! How is an answer run in Python or in Node? Its program is in `examples/<language>/<answer>/`. Its packages are installed
//! below `target/examples/`, as their lock file says. It gets its port and its servers by environment variables.
//!
//! Another language is another [`Language`]: where its interpreter or compiler is, and how its packages are installed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, anyhow, ensure};
use clap::{Arg, ArgAction, ArgMatches, builder::PossibleValuesParser, value_parser};
use lab::{Answer, Service, database, serve::asked_to_stop, skip, stack, why_skipped};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::migrate::Migrator;
use tokio::io::{AsyncBufReadExt, BufReader};

const PYTHON_FROM: &str = "see https://www.python.org/downloads, or apt-get install python3-venv";
const NODE_FROM: &str = "see https://nodejs.org";

/// A language in which answers are written beside Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `CPython`, with the packages in `examples/python/requirements.txt`.
    Python,
    /// Node, with the packages in `examples/node/package-lock.json`.
    Node,
}

impl Language {
    /// All of them.
    pub const EVERY: [Self; 2] = [Self::Python, Self::Node];

    /// Its name on the command line, which is also its folder's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// Its name in a text.
    pub fn title(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Node => "Node",
        }
    }

    /// Its name and the version that is on this machine: `Python 3.11.7`.
    pub fn version(self) -> anyhow::Result<String> {
        let said = match self {
            Self::Python => version("python3", "3.11", PYTHON_FROM),
            Self::Node => version("node", "20", NODE_FROM),
        };
        Ok(format!(
            "{} {}",
            self.title(),
            said?.trim_start_matches(|it: char| !it.is_ascii_digit())
        ))
    }

    /// The folder of its programs.
    pub fn sources(self) -> PathBuf {
        stack::workspace().join("examples").join(self.name())
    }

    /// What we make belongs here: neither a virtual environment nor `node_modules` is a part of the source.
    fn made(self) -> PathBuf {
        stack::workspace().join("target/examples").join(self.name())
    }

    fn file(self, whiteboard: bool) -> &'static str {
        match (self, whiteboard) {
            (Self::Python, false) => "app.py",
            (Self::Python, true) => "whiteboard.py",
            (Self::Node, false) => "app.mjs",
            (Self::Node, true) => "whiteboard.mjs",
        }
    }

    /// Whether there is a program for this answer.
    pub fn has(self, answer: &str, whiteboard: bool) -> bool {
        self.sources().join(answer).join(self.file(whiteboard)).is_file()
    }

    /// The command that runs the program of this answer. Installs the packages, unless they are there. An error made by
    /// [`skip`] says what this machine lacks.
    pub fn command(self, answer: &str, whiteboard: bool) -> anyhow::Result<Command> {
        ensure!(
            self.has(answer, whiteboard),
            "there is no examples/{}/{answer}/{}",
            self.name(),
            self.file(whiteboard)
        );
        fs::create_dir_all(self.made())?;
        // Two processes must not install at once. The lock ends with this process, however that ends.
        let lock = File::create(self.made().join("lock"))?;
        lock.lock()?;
        let file = Path::new(answer).join(self.file(whiteboard));
        Ok(match self {
            Self::Python => {
                let mut command = Command::new(python(&self.sources(), &self.made())?);
                command.arg(self.sources().join(file));
                // What the programs share is in the folder above theirs; and no `__pycache__` among the sources.
                command.env("PYTHONPATH", self.sources()).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Self::Node => {
                node(&self.sources(), &self.made())?;
                let mut command = Command::new("node");
                command.arg(self.made().join(file)).env("NODE_ENV", "production");
                command
            }
        })
    }
}

/// The interpreter of a virtual environment that has the packages.
fn python(sources: &Path, made: &Path) -> anyhow::Result<PathBuf> {
    let version = Language::Python.version()?;
    let venv = made.join("venv");
    let interpreter = venv.join("bin/python");
    let wanted = fs::read_to_string(sources.join("requirements.txt"))?;
    installed(made, &format!("{version}\n{wanted}"), || {
        remove(&venv)?;
        eprintln!("  installing the packages of examples/python below {}", made.display());
        let venv = Command::new("python3").args(["-m", "venv"]).arg(&venv).output()?;
        succeeded(
            &venv,
            "python3 cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv",
        )?;
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--retries", "1", "--require-hashes", "-r"]);
        let pip = pip.arg(sources.join("requirements.txt")).output()?;
        succeeded(&pip, "the packages for Python cannot be installed; is there a network?")
    })?;
    Ok(interpreter)
}

/// Copies the sources beside `node_modules`: Node looks for packages above the file that imports them.
fn node(sources: &Path, made: &Path) -> anyhow::Result<()> {
    let version = Language::Node.version()?;
    copy(sources, made)?;
    let wanted = fs::read_to_string(sources.join("package-lock.json"))?;
    installed(made, &format!("{version}\n{wanted}"), || {
        eprintln!("  installing the packages of examples/node below {}", made.display());
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--fetch-retries", "1"]).current_dir(made);
        let npm = npm.output().map_err(|error| missing(&error, "npm", NODE_FROM))?;
        succeeded(&npm, "the packages for Node cannot be installed; is there a network?")
    })
}

/// Calls `install`, unless an earlier call has installed exactly this.
fn installed(
    made: &Path,
    wanted: &str,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mark = made.join("installed");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // An installation that is broken off must not count as one. There may be no mark yet.
    let _ = fs::remove_file(&mark);
    install()?;
    Ok(fs::write(mark, wanted)?)
}

/// What `program --version` says, if it is at least this version. Otherwise the error says where to get it.
fn version(program: &str, least: &str, from: &str) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| missing(&error, program, from))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if numbers(&said) < numbers(least) {
        return Err(skip(format!(
            "{program} {least} or later is needed, and this is {said}: {from}"
        )));
    }
    Ok(said)
}

/// `Python 3.11.7` and `v20.20.2` are lists of numbers.
fn numbers(version: &str) -> Vec<u32> {
    let digits = version.trim_start_matches(|it: char| !it.is_ascii_digit());
    digits.split('.').map_while(|number| number.parse().ok()).collect()
}

fn missing(error: &io::Error, program: &str, from: &str) -> anyhow::Error {
    skip(format!("{program} is not installed, or does not run ({error}): {from}"))
}

/// An error if the command has failed, with the line of its standard error that says why: npm's code, pip's last line.
fn succeeded(output: &std::process::Output, otherwise: &str) -> anyhow::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let code = said.lines().find(|line| line.starts_with("npm error code"));
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Err(skip(format!("{otherwise} ({})", code.or(last).unwrap_or_default().trim())))
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copied) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &copied)?;
        } else if fs::read(&source)? != fs::read(&copied).unwrap_or_default() {
            fs::copy(&source, &copied)?;
        }
    }
    Ok(())
}

/// `example` and its options, for these answers.
pub fn command(answers: &[Answer]) -> clap::Command {
    let written = |name: &&str| Language::EVERY.into_iter().any(|it| it.has(name, false));
    let names = answers.iter().map(|answer| answer.name).filter(written);
    let port = Arg::new("port").long("port").default_value("3000").value_parser(value_parser!(u16));
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    clap::Command::new("example")
        .about("Serves an answer that is written in another language, from examples/")
        .arg(Arg::new("answer").required(true).value_parser(PossibleValuesParser::new(names)))
        .arg(
            Arg::new("in")
                .long("in")
                .required(true)
                .value_name("LANGUAGE")
                .value_parser(PossibleValuesParser::new(Language::EVERY.map(Language::name)))
                .help("The language"),
        )
        .arg(port.help("0: any free port"))
        .arg(flag("whiteboard").help("Serves the version that a candidate writes in the interview"))
        .arg(flag("reset").help("Deletes the program's own database first and makes a new one"))
}

/// Serves the program until it ends, or until SIGTERM or Ctrl-C.
pub async fn run(answers: &[Answer], matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let given = |name: &str| matches.get_one::<String>(name).map_or("", String::as_str);
    let answer = answers.iter().find(|it| it.name == given("answer")).context("no such answer")?;
    let language = Language::EVERY.into_iter().find(|it| it.name() == given("in"));
    let language = language.context("no such language")?;
    let whiteboard = matches.get_flag("whiteboard");
    let port = matches.get_one("port").copied().unwrap_or_default();
    let port = if port == 0 { lab::port::free()? } else { port };
    // The program would report a port that is taken in its own words, after the installation. The port is free again
    // when this is dropped.
    drop(lab::serve::bind("127.0.0.1", port).await?);
    let name = answer.name;
    let command = tokio::task::spawn_blocking(move || language.command(name, whiteboard)).await?;
    // A test that lacks something is skipped. Here somebody waits for the program.
    let command = command.map_err(|error| match why_skipped(&error) {
        Some(why) => anyhow!("{why}"),
        None => error,
    })?;
    let mut command = tokio::process::Command::from(command);
    let part = format!("{}{}", language.name(), if whiteboard { "-whiteboard" } else { "" });
    let servers = servers(answer, &part, matches.get_flag("reset")).await?;
    command.env("PORT", port.to_string()).envs(servers);
    let stopped = asked_to_stop();
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    let telling = async {
        while let Ok(Some(line)) = lines.next_line().await {
            println!("{line}");
            if let Some(url) = line.strip_prefix("listening on ") {
                for line in answer.try_it {
                    // The table of calls gives the accounts of `secure-api` this password.
                    let line = line.replace("{password}", "seven quiet otters at noon");
                    eprintln!("  {}", line.replace("{url}", url.trim_end_matches('/')));
                }
            }
        }
    };
    let stopping = async {
        stopped.await;
        let again = asked_to_stop();
        if let Some(pid) = pid {
            // It fails if the program has ended. After Ctrl-C, the terminal has told it already.
            let _ = kill_process(pid, Signal::TERM);
        }
        again.await;
    };
    let ended = async {
        let (status, ()) = tokio::join!(child.wait(), telling);
        status
    };
    tokio::select! {
        status = ended => Ok(ExitCode::from(u8::try_from(status?.code().unwrap_or(1)).unwrap_or(1))),
        // The second signal. Dropping the child kills it.
        () = stopping => Ok(ExitCode::FAILURE),
    }
}

/// The variables that tell the program where its servers are, and which names there are its own.
async fn servers(
    answer: &Answer,
    part: &str,
    reset: bool,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut variables = vec![
        ("KEY_PREFIX", format!("worked-answers:{}:{part}:", answer.name)),
        ("QUEUE_PREFIX", format!("worked-answers.{}.{part}", answer.name)),
    ];
    for service in answer.needs {
        let url = match service {
            // The programs bring their own tables.
            Service::Postgres => {
                let none = Migrator::with_migrations(Vec::new());
                database::kept(answer.name, Some(part), &none, reset).await?
            }
            other => stack::server(*other).await?.url,
        };
        variables.push((service.variable(), url));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("Python 3.9.2") < numbers("3.11"));
        assert!(numbers("Python 3.11.7") >= numbers("3.11"));
        assert!(numbers("v20.20.2") >= numbers("20"));
        assert!(numbers("v8.0.0") < numbers("20"));
    }

    #[test]
    fn what_this_machine_lacks_is_said_in_a_line() {
        for (program, least) in [("no-such-program", "1"), ("cargo", "1000")] {
            let error = version(program, least, "where it is from").unwrap_err();
            let said = lab::why_skipped(&error).unwrap();
            assert!(said.contains(program) && said.ends_with("where it is from"), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn what_is_installed_is_not_installed_again() {
        let made = tempfile::tempdir().unwrap();
        let install = |wanted: &str| {
            let mut ran = false;
            installed(made.path(), wanted, || {
                ran = true;
                Ok(())
            })
            .unwrap();
            ran
        };
        assert!(install("one"));
        assert!(!install("one"));
        assert!(install("two"));
        let failed = installed(made.path(), "three", || Err(skip("no network")));
        assert!(failed.is_err());
        assert!(install("two"), "what was half installed counts as nothing");
    }
}
