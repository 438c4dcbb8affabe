//! How does an experiment kill an answer? The answer runs as a separate process: this same executable with other
//! arguments. Every binary built on `lab` understands them ([`take_over`](crate::take_over)).

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io::Read,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{ChildStdin, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{database::Database, executable, open_files, port, whiteboard};

/// Set in a child's environment.
const MARK: &str = "LAB_CHILD";
const PATIENCE: Duration = Duration::from_secs(30);
/// How many of a child's last lines are kept for an error message, unless somebody wants more.
const LINES: usize = 40;

/// Prepares one of our programs to run as a child: it ends when its standard input is closed. Its arguments begin with
/// an answer's name or with `stack`.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    open_files::as_before(command.as_std_mut());
    command.env(MARK, "1").stdin(Stdio::piped());
    command
}

/// The path of this executable.
pub fn this_program() -> anyhow::Result<PathBuf> {
    executable::path()
}

/// Whether this process is such a child. If it is, it ends when its parent ends, from this call on.
pub(crate) fn is_this() -> bool {
    if std::env::var_os(MARK).is_none() {
        return false;
    }
    // The parent holds the other end, and the kernel closes it when the parent dies.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    true
}

/// A server or worker that is about to be started.
#[derive(Clone, Debug, Default)]
pub struct ChildBuilder {
    /// The answer that it serves, if it serves one.
    serves: Option<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    lines: Option<usize>,
}

impl ChildBuilder {
    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Keeps so many of its last lines, for an experiment that reads them.
    pub fn keep_lines(self, lines: usize) -> Self {
        Self { lines: Some(lines), ..self }
    }

    /// Gives it this database.
    pub fn database(self, database: &Database) -> Self {
        self.env("DATABASE_URL", database.url())
    }

    /// Starts it on a free port, or on the port given by `--port`, and waits until it listens.
    pub async fn start(self) -> anyhow::Result<Child> {
        let mut command = command(this_program()?);
        if let Some(answer) = &self.serves {
            // A new free port for each start. A later `--port` overrides it.
            command.arg(answer).args(["serve", "--port", &port::free()?.to_string()]);
            command.args(whiteboard::word());
        }
        let mut process = command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a child of this executable")?;
        let stdin = process.stdin.take();
        let log = Log::keeping(self.lines.unwrap_or(LINES));
        let said = log.follow(process.stderr.take().context("its standard error is piped")?);
        let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(url) = line.strip_prefix("listening on ") {
                    return Ok(url.trim_end_matches('/').to_owned());
                }
            }
            Err(anyhow!("the child ended before it listened"))
        };
        let url = match timeout(PATIENCE, listening).await {
            Ok(Ok(url)) => url,
            Ok(Err(error)) => {
                // Its last words may still be on their way to us.
                let _ = timeout(Duration::from_secs(1), said).await;
                bail!("{error}:\n{}", log.text())
            }
            Err(_) => bail!("the child did not listen within {PATIENCE:?}:\n{}", log.text()),
        };
        log.follow(lines.into_inner().into_inner());
        Ok(Child { process, url, log, builder: self, _stdin: stdin })
    }
}

/// A running answer. Killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    url: String,
    log: Log,
    builder: ChildBuilder,
    /// Open as long as this process lives; see [`is_this`].
    _stdin: Option<ChildStdin>,
}

/// The resident set size of this process, in bytes.
pub async fn memory_of(pid: u32) -> anyhow::Result<u64> {
    let kibibytes: u64 = if cfg!(target_os = "linux") {
        // A small container has no `ps`.
        let status = tokio::fs::read_to_string(format!("/proc/{pid}/status")).await?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?
    } else {
        let output = Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output();
        String::from_utf8_lossy(&output.await?.stdout).trim().parse()?
    };
    Ok(kibibytes * 1_024)
}

impl Child {
    /// Prepares `<answer> serve` on a free port.
    pub fn serve(answer: &str) -> ChildBuilder {
        ChildBuilder { serves: Some(answer.into()), ..ChildBuilder::default() }
    }

    /// Prepares this executable with any arguments.
    pub fn command(words: &[&str]) -> ChildBuilder {
        ChildBuilder::default().args(words)
    }

    /// Its address without a slash at the end: `http://127.0.0.1:40123`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Its process id, if it has not ended.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Its resident set size, in bytes.
    pub async fn memory(&self) -> anyhow::Result<u64> {
        memory_of(self.pid().context("it has ended already")?).await
    }

    /// The last lines that it wrote.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// SIGKILL: it cannot clean up. Returns when it is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("cannot kill the child")
    }

    /// SIGTERM: it may finish what is in flight. Returns how it ended.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = timeout(PATIENCE, self.process.wait()).await;
        ended
            .with_context(|| format!("the child did not stop:\n{}", self.log()))?
            .map_err(Into::into)
    }

    /// SIGSTOP: it keeps its connections and answers nothing, like a process in a long pause.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: ends the pause.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Starts it again, with the same arguments and on the same port, after it was killed or stopped.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let port = self.url.rsplit(':').next().context("no port")?.to_owned();
        let builder = self.builder.clone();
        // The last `--port` counts. The builder keeps none, or each restart would add one more.
        let started = builder.clone().arg("--port").arg(port).start().await?;
        *self = Self { builder, ..started };
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.process.id().context("it has ended already")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }
}

/// The last lines of a child's output.
#[derive(Clone, Debug)]
struct Log {
    kept: Arc<Mutex<VecDeque<String>>>,
    most: usize,
}

impl Log {
    fn keeping(most: usize) -> Self {
        Self { kept: Arc::default(), most }
    }

    /// Reads until the child closes its end, which it does when it dies.
    fn follow(&self, output: impl AsyncRead + Send + Unpin + 'static) -> JoinHandle<()> {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut kept = log.kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == log.most {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        })
    }

    fn text(&self) -> String {
        let lines = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_of_the_last_lines_are_kept_as_somebody_wants() {
        let log = Log::keeping(2);
        log.follow(&b"one\ntwo\nthree\n"[..]).await.unwrap();
        assert_eq!(log.text(), "two\nthree");
    }
}
