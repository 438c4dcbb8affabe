//! How is the reader's program killed and started again? The reader gives the command that starts it. All processes of
//! the command are in one process group and have a mark in their environment, so that we can kill them with SIGKILL. A
//! command that hands its program to another one, such as `systemctl restart`, has to end the old program itself.
//!
//! Invariant: a crash case never passes on a program that was not ended. We check this by a connection that was opened
//! before.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use reqwest::Url;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::target::{Restart, Target};

/// Set in the environment of the command. A server that must outlive the program removes it.
pub const MARK: &str = "CONFORM_RUN";
/// How long a connection may take to close after its program ended. Usually no time, but a busy machine is slow.
const ENDED: Duration = Duration::from_secs(5);
/// The time between two checks of a program that is starting.
const POLL: Duration = Duration::from_millis(50);
/// How often we report that we still wait.
const PROGRESS: Duration = Duration::from_secs(2);

/// The reader's program. Dropping this kills everything that its command has started.
#[derive(Debug)]
pub struct Program {
    start: Start,
    running: Arc<Mutex<Option<Running>>>,
}

/// How to start the program.
#[derive(Clone, Debug)]
struct Start {
    command: String,
    /// Where the program answers.
    target: Target,
    /// How long it may take until it answers.
    wait: Duration,
}

/// The processes that the command has started.
#[derive(Debug)]
struct Running {
    shell: Child,
    group: Pid,
    /// The mark in the environment of all of them.
    mark: String,
}

impl Program {
    /// Starts the program and waits until it answers at this URL. Fails if something answers there before: we would
    /// test that in place of the program, and could not kill it.
    pub async fn of(command: String, url: &str, wait: Duration) -> anyhow::Result<Self> {
        let start = Start { command, target: Target::new(url, None)?, wait };
        ensure!(
            start.connect().await.is_err(),
            "something listens at {url} already, and the crash cases could not kill it. Stop it first: \
             --restart-cmd starts your program"
        );
        let running = start.run()?;
        let program = Self { start, running: Arc::new(Mutex::new(Some(running))) };
        let mut running = program.take();
        let waited = program.start.until_it_answers(running.as_mut()).await;
        program.put(running);
        waited.map(|()| program)
    }

    /// Kills it and starts it again.
    pub fn restart(&self) -> Restart {
        let program = Self { start: self.start.clone(), running: Arc::clone(&self.running) };
        let program = Arc::new(program);
        Arc::new(move || {
            let program = Arc::clone(&program);
            Box::pin(async move {
                let before = program.start.connect().await.context("it has ended by itself")?;
                // Dropping it kills it.
                drop(program.take());
                let mut running = program.start.again(before).await?;
                let waited = program.start.until_it_answers(Some(&mut running)).await;
                program.put(Some(running));
                waited
            })
        })
    }

    fn take(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, running: Option<Running>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

impl Start {
    /// A connection to whatever listens at the target.
    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let addresses = Url::parse(self.target.url())?.socket_addrs(|| None)?;
        Ok(TcpStream::connect(&*addresses).await?)
    }

    /// Runs the command.
    fn run(&self) -> anyhow::Result<Running> {
        let mark = format!("{:016x}", rand::random::<u64>());
        let shell = Command::new("sh")
            .args(["-c", &self.command])
            .env(MARK, &mark)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.command))?;
        let group = i32::try_from(shell.id().context("it has ended already")?)?;
        Ok(Running { shell, group: Pid::from_raw(group).context("no pid")?, mark })
    }

    /// Runs the command again, after everything that it had started was killed. `before` is a connection to the old
    /// program, which has to end: by that kill, or by the command.
    async fn again(&self, mut before: TcpStream) -> anyhow::Result<Running> {
        if is_closed(&mut before, ENDED).await {
            return self.run();
        }
        let running = self.run()?;
        let deadline = Instant::now() + self.wait;
        while !is_closed(&mut before, POLL).await {
            let Some(status) = running.ended()? else {
                ensure!(Instant::now() < deadline, "{}", self.still_there("runs"));
                continue;
            };
            self.succeeded(status)?;
            let closed = is_closed(&mut before, ENDED).await;
            ensure!(closed, "{}", self.still_there("returned"));
            break;
        }
        Ok(running)
    }

    fn still_there(&self, does: &str) -> String {
        format!(
            "`{}` {does}, and the old program still has its connections: nothing was killed. A command that \
             leaves your program outside its process group has to end the old one itself",
            self.command
        )
    }

    /// Waits until the program answers, and reports that it waits.
    async fn until_it_answers(&self, mut running: Option<&mut Running>) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut told = begun;
        while !self.target.answers().await {
            if let Some(running) = running.as_mut()
                && let Some(status) = running.ended()?
            {
                self.succeeded(status)?;
            }
            let waited = begun.elapsed();
            if waited > self.wait {
                bail!(
                    "your program does not answer at {} after {} s. --wait SECONDS allows it more",
                    self.target.url(),
                    waited.as_secs()
                );
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                let (waited, most) = (waited.as_secs(), self.wait.as_secs());
                eprintln!("  waiting until your program answers: {waited} s of {most}");
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Fails if the command has failed. Its standard error says why.
    fn succeeded(&self, status: ExitStatus) -> anyhow::Result<()> {
        ensure!(
            status.success(),
            "`{}` ended with {status}, before anything answered",
            self.command
        );
        Ok(())
    }
}

impl Running {
    /// The exit status of the command, if it has ended. It stays a zombie, so that the system does not reuse the number
    /// of its process group.
    fn ended(&self) -> io::Result<Option<ExitStatus>> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(status) = waitid(WaitId::Pid(self.group), look)? else { return Ok(None) };
        let code = status.exit_status().unwrap_or_default() << 8;
        Ok(Some(ExitStatus::from_raw(code | status.terminating_signal().unwrap_or_default())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if all of them have ended.
        let _ = kill_process_group(self.group, Signal::KILL);
        // A daemon leaves its group, but keeps its environment, which Linux shows. We look again until no marked
        // process is left, because one may fork while we look.
        let deadline = Instant::now() + ENDED;
        let killed = |pid: &Pid| kill_process(*pid, Signal::KILL).is_ok();
        while Instant::now() < deadline
            && marked(&self.mark).iter().filter(|pid| killed(pid)).count() > 0
        {}
        // Collect the exit status only now. If the process is still ending, tokio collects it later.
        let _ = self.shell.try_wait();
    }
}

/// The processes that have this mark in their environment; none on a system without `/proc`. A process that has ended
/// has no environment.
fn marked(mark: &str) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_marked = |entry: &fs::DirEntry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let wanted = format!("{MARK}={mark}");
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    entries.filter(is_marked).filter_map(pid).collect()
}

/// Whether the connection ends within this time. Bytes that arrive meanwhile are ignored.
async fn is_closed(connection: &mut TcpStream, within: Duration) -> bool {
    let mut bytes = [0; 1024];
    let ended = async { while !matches!(connection.read(&mut bytes).await, Ok(0) | Err(_)) {} };
    timeout(within, ended).await.is_ok()
}
