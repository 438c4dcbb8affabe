//! How does an experiment harm a server without harming anyone? It starts one of its own, from the same
//! programs, on a port of its own; the keeper removes it when the experiment ends, however it ends.

use std::{fs, fs::File, process::Command, time::Duration};

use anyhow::Context;
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use tokio::time::{sleep, timeout};

use super::{
    home::Home,
    private::{self, Place},
    probe,
    programs::Programs,
    service::{Launch, Service},
};
use crate::skip::skip;

/// A private server that nobody shares.
#[derive(Debug)]
pub struct OwnServer {
    place: Place,
    /// Closing it tells the keeper to stop the server.
    user: Option<File>,
    /// Locked as long as this lives: what is not locked was left behind.
    _owner: File,
}

/// Run by the keeper when the last user has gone, and not when the server was killed.
const REMOVE: &str = r#"[ -z "$told" ] || rm -rf "$PWD""#;

impl OwnServer {
    /// Starts a server with no data. Skips the experiment where only given servers are to be had.
    pub async fn start(service: Service) -> anyhow::Result<Self> {
        let mut server = Self::prepare(service)?;
        server.restart().await?;
        Ok(server)
    }

    /// Makes the home of a server and starts nothing. For a server that is to be a member of a group: its folder can
    /// be filled and its launch changed before [`restart`](Self::restart).
    pub(crate) fn prepare(service: Service) -> anyhow::Result<Self> {
        let programs = service.programs().ok_or_else(|| {
            skip(format!("needs a {service} of its own, which is not installed here"))
        })?;
        remove_what_was_left(service)?;
        let home = service.own_home()?;
        home.create()?;
        home.free_port()?;
        let owner = home.lock_file("owner.lock")?;
        owner.try_lock().context("a home of our own, and yet locked")?;
        Ok(Self { place: Place::new(service, home, programs), user: None, _owner: owner })
    }

    /// Changes how it is started, each time.
    pub(crate) fn adapt(&mut self, change: impl Fn(&mut Launch) + Send + Sync + 'static) {
        self.place.adapt = Box::new(change);
    }

    /// Its folder.
    pub(crate) fn home(&self) -> &Home {
        &self.place.home
    }

    /// What runs it.
    pub(crate) fn programs(&self) -> &Programs {
        &self.place.programs
    }

    /// Its port, the same after a restart.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.place.home.read("port")?.parse()?)
    }

    /// Its address, the same after a restart.
    pub fn url(&self) -> anyhow::Result<String> {
        self.place.url()
    }

    /// Its name and version.
    pub async fn version(&self) -> anyhow::Result<String> {
        probe::version(self.place.service, &self.url()?).await
    }

    /// SIGKILL to all of the server's processes, the nearest thing to a power cut that they can see. Returns
    /// when they are gone.
    ///
    /// PostgreSQL has a process for each connection, and those outlive the first by a moment, in which they could
    /// still write and answer. So all are stopped before any is killed: no process sees another one die.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let all = self.stopped()?;
        signal(&all, Signal::KILL)?;
        self.gone().await
    }

    /// SIGSTOP to all of the server's processes: it keeps its connections and says nothing, like one on a machine that
    /// is busy with something else for a while.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.stopped().map(drop)
    }

    /// SIGCONT: it goes on and does not know how late it is.
    pub fn resume(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        let mut all = children(pid)?;
        all.push(pid);
        signal(&all, Signal::CONT)
    }

    /// Whether it runs, perhaps paused.
    pub fn is_running(&self) -> anyhow::Result<bool> {
        self.place.home.is_running()
    }

    /// All of the server's processes, stopped.
    fn stopped(&self) -> anyhow::Result<Vec<Pid>> {
        let pid = self.pid()?;
        // While it is stopped it starts no others.
        kill_process(pid, Signal::STOP)?;
        let mut all = children(pid)?;
        all.push(pid);
        signal(&all, Signal::STOP)?;
        Ok(all)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        self.place.home.read("pid")?.parse().ok().and_then(Pid::from_raw).context("no pid")
    }

    /// Starts it, or starts it again after [`kill`](Self::kill), with its data, on its port.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.user = Some(private::start(&self.place, 0, REMOVE).await?);
        Ok(())
    }

    async fn gone(&mut self) -> anyhow::Result<()> {
        let gone = async {
            while self.place.home.is_running()? {
                sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(30), gone).await.context("killed, and it still runs")??;
        self.user = None;
        Ok(())
    }
}

fn signal(processes: &[Pid], signal: Signal) -> anyhow::Result<()> {
    for &process in processes {
        match kill_process(process, signal) {
            // It had just ended by itself.
            Err(Errno::SRCH) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// The processes that this one started and that still live.
fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    if !cfg!(target_os = "linux") {
        let output = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().context("ps")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        return Ok(text
            .lines()
            .filter_map(|line| child(line.split_whitespace(), parent))
            .collect());
    }
    // A small container has no `ps`.
    let mut children = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        // `pid (name) state ppid …`, and the name may hold spaces and parentheses. It may end as we look.
        let Ok(stat) = fs::read_to_string(process.path().join("stat")) else { continue };
        let (Some((pid, _)), Some((_, rest))) = (stat.split_once(' '), stat.rsplit_once(')'))
        else {
            continue;
        };
        let fields = [pid].into_iter().chain(rest.split_whitespace().skip(1));
        children.extend(child(fields, parent));
    }
    Ok(children)
}

/// The pid, if the parent's pid, which follows it, is this one.
fn child<'a>(mut fields: impl Iterator<Item = &'a str>, parent: Pid) -> Option<Pid> {
    let pid = fields.next()?.parse().ok()?;
    let of: i32 = fields.next()?.parse().ok()?;
    if of == parent.as_raw_nonzero().get() { Pid::from_raw(pid) } else { None }
}

/// Homes of experiments that were killed between a server's death and its restart.
fn remove_what_was_left(service: Service) -> anyhow::Result<()> {
    let example = service.own_home()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_by_their_parent() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let found = children(rustix::process::getpid());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.unwrap().contains(&pid));
        assert!(!children(rustix::process::getpid()).unwrap().contains(&pid));
    }
}
