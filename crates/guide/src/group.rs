//! How do we end a program with everything that it started? It leads a process group of its own, and we kill the group.
//!
//! Invariant: we signal the group only before we have waited for its leader. Until then the system does not reuse the
//! leader's pid, which is the group's number.

use std::{
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long a stopped program may clean up. An experiment drops its database.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a program in a group of its own until it ends, or until `stop`. Each line that it writes goes to `out` or to
/// `err`. Returns its exit status, or `None` if it was stopped. In either case no process of the group is left.
///
/// If the future is dropped, the group is killed at once.
pub async fn run(
    command: &mut Command,
    stop: &CancellationToken,
    out: impl FnMut(String),
    err: impl FnMut(String),
) -> anyhow::Result<Option<ExitStatus>> {
    let mut group = Group::start(command)?;
    // A child of `lab` ends when this pipe closes, even if the guide is killed and cannot signal it.
    let _stdin = group.leader.stdin.take();
    let stdout = group.leader.stdout.take().context("its standard output is piped")?;
    let stderr = group.leader.stderr.take().context("its standard error is piped")?;
    let mut read = pin!(async { tokio::join!(lines(stdout, out), lines(stderr, err)) });
    let stopped = tokio::select! {
        _ = &mut read => false,
        () = stop.cancelled() => true,
    };
    if stopped {
        group.ask_leader_to_stop();
        // The pipes close when all processes of the group have ended. `end` kills those that have not.
        let _ = timeout(GRACE, read).await;
    }
    let status = group.end().await?;
    Ok((!stopped).then_some(status))
}

/// Reads until the last process that can write to it has ended.
async fn lines(pipe: impl AsyncRead + Unpin, mut each: impl FnMut(String)) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        each(line);
    }
}

struct Group {
    leader: Child,
    pid: Pid,
}

impl Group {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let leader = command
            // Ctrl-C then goes only to the guide's own group, and the guide stops its runs itself.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", command.as_std().get_program().display()))?;
        let pid = leader.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        Ok(Self { leader, pid: pid.context("it has a pid")? })
    }

    fn ask_leader_to_stop(&self) {
        let _ = kill_process(self.pid, Signal::TERM);
    }

    /// Kills what is left of the group, and waits for its leader.
    async fn end(mut self) -> anyhow::Result<ExitStatus> {
        self.kill();
        Ok(self.leader.wait().await?)
    }

    /// Kills the group, unless we have waited for its leader.
    fn kill(&self) {
        if self.leader.id().is_some() {
            // Fails if no process of the group is left.
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
