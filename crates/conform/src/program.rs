//! How is the reader's program killed and started again? By the command that starts it: it runs in a process group
//! of its own, which SIGKILL ends. If something answers already, the command has to do both.

use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::target::{Restart, eventually};

/// A command that replaces a running server returns, or is that server, after so long.
const REPLACED: Duration = Duration::from_secs(2);

/// The reader's program, killed when this is dropped if we have started it.
#[derive(Debug)]
pub struct Program {
    command: String,
    /// Nothing while something else answered.
    group: Arc<Mutex<Option<Group>>>,
}

/// A shell and what it started.
#[derive(Debug)]
struct Group {
    shell: Child,
    pid: Pid,
}

impl Drop for Group {
    fn drop(&mut self) {
        // An error means that all of them have ended.
        let _ = kill_process_group(self.pid, Signal::KILL);
    }
}

impl Program {
    /// Starts the program and waits until it answers at this URL, unless something answers there already.
    pub async fn of(command: String, url: &str) -> anyhow::Result<Self> {
        let program = Self { command, group: Arc::default() };
        if reqwest::get(url).await.is_err() {
            let group = start(&program.command)?;
            *program.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
            eventually("the program answers", async || {
                Ok(reqwest::get(url).await.ok().map(|_| ()))
            })
            .await?;
        }
        Ok(program)
    }

    /// Kills it and starts it again.
    pub fn restart(&self) -> Restart {
        let (command, group) = (self.command.clone(), Arc::clone(&self.group));
        Arc::new(move || {
            let (command, group) = (command.clone(), Arc::clone(&group));
            Box::pin(async move {
                let ours = group.lock().unwrap_or_else(PoisonError::into_inner).take();
                let started = match ours {
                    Some(mut ours) => {
                        kill_process_group(ours.pid, Signal::KILL)?;
                        ours.shell.wait().await?;
                        start(&command)?
                    }
                    None => replace(&command).await?,
                };
                *group.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
                Ok(())
            })
        })
    }
}

fn start(command: &str) -> anyhow::Result<Group> {
    let shell = Command::new("sh")
        .args(["-c", command])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {command}"))?;
    let pid = i32::try_from(shell.id().context("it has ended already")?)?;
    Ok(Group { shell, pid: Pid::from_raw(pid).context("no pid")? })
}

/// Lets the command kill what answers now: until then the old one would answer for the new.
async fn replace(command: &str) -> anyhow::Result<Group> {
    let mut group = start(command)?;
    // If it goes on, it has become the server.
    if let Ok(status) = timeout(REPLACED, group.shell.wait()).await {
        ensure!(status?.success(), "{command} failed");
    }
    Ok(group)
}
