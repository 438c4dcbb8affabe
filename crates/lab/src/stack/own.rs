//! How does an experiment harm a server without harming anyone? It starts one of its own, from the same
//! programs, on a port of its own; the keeper removes it when the experiment ends, however it ends.

use std::{fs, fs::File, time::Duration};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

use super::{
    Kind,
    home::Home,
    private, probe,
    programs::{Programs, find},
};
use crate::experiment::skip;

/// A private server that nobody shares.
#[derive(Debug)]
pub struct OwnServer {
    home: Home,
    programs: Programs,
    /// Closing it tells the keeper to stop the server.
    user: Option<File>,
    /// Locked as long as this lives: what is not locked was left behind.
    _owner: File,
}

/// Run by the keeper when the last user has gone, and not when the server was killed.
const REMOVE: &str = r#"[ -z "$told" ] || rm -rf "$PWD""#;

impl OwnServer {
    /// Starts a server with no data. Skips the experiment where only given servers are to be had.
    pub async fn start(kind: Kind) -> anyhow::Result<Self> {
        let programs = find(kind).ok_or_else(|| {
            skip(format!("needs a {kind} of its own, which is not installed here"))
        })?;
        remove_what_was_left(kind)?;
        let home = Home::own(kind)?;
        home.create()?;
        let owner = home.lock_file("owner.lock")?;
        owner.try_lock().context("a home of our own, and yet locked")?;
        let user = private::start(&home, &programs, 0, REMOVE).await?;
        Ok(Self { home, programs, user: Some(user), _owner: owner })
    }

    /// Its address, the same after a restart.
    pub fn url(&self) -> anyhow::Result<String> {
        self.home.url()
    }

    /// Its name and version.
    pub async fn version(&self) -> anyhow::Result<String> {
        probe::version(self.home.kind, &self.url()?).await
    }

    /// SIGKILL, the nearest thing to a power cut that a process can see. Returns when it is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let file = if self.home.kind == Kind::RabbitMq { "rabbitmq.pid" } else { "pid" };
        let pid = self.home.read(file)?.parse().ok().and_then(Pid::from_raw);
        kill_process(pid.context("no pid")?, Signal::KILL)?;
        self.gone().await
    }

    /// Starts it again after [`kill`](Self::kill), with its data, on its port.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.user = Some(private::start(&self.home, &self.programs, 0, REMOVE).await?);
        Ok(())
    }

    async fn gone(&mut self) -> anyhow::Result<()> {
        let gone = async {
            while self.home.is_running()? {
                sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(30), gone).await.context("killed, and it still runs")??;
        self.user = None;
        Ok(())
    }
}

/// Homes of experiments that were killed between a server's death and its restart.
fn remove_what_was_left(kind: Kind) -> anyhow::Result<()> {
    let example = Home::own(kind)?;
    let Some(Ok(homes)) = example.path.parent().map(fs::read_dir) else { return Ok(()) };
    for path in homes.flatten().map(|entry| entry.path()) {
        let home = Home { path, ..example.clone() };
        // One that is just being made has a lock that nobody holds yet.
        let age = fs::metadata(&home.path).and_then(|it| it.modified()).map(|it| it.elapsed());
        let young = !matches!(age, Ok(Ok(age)) if age > Duration::from_mins(1));
        if young || !home.path.join("owner.lock").exists() {
            continue;
        }
        if home.lock_file("owner.lock")?.try_lock().is_ok() && !home.is_running()? {
            tracing::debug!(home = %home.path.display(), "removing what was left behind");
            let _ = fs::remove_dir_all(&home.path);
        }
    }
    Ok(())
}
