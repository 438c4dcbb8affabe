//! How are all processes of a server stopped at the same moment? PostgreSQL has one process for each connection, in a
//! session of its own, so a signal to a process group does not reach them all.
//!
//! Invariant: the caller is the parent of the first process and has not waited for it. While the first process is
//! stopped, it does not wait for its children either. So the system cannot reuse any of these pids.

use std::{fs, process::Command};

use anyhow::Context;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid},
};

/// Sends SIGKILL to all, which comes closest to a power cut. All are stopped before any is killed, or the last ones
/// could still write and answer.
pub fn kill(parent: Pid) -> anyhow::Result<()> {
    pause(parent)?;
    for child in children(parent)? {
        signal(child, Signal::KILL)?;
    }
    Ok(signal(parent, Signal::KILL)?)
}

/// Sends SIGSTOP to all, to the parent first, so that it starts no more children.
pub fn pause(parent: Pid) -> anyhow::Result<()> {
    signal(parent, Signal::STOP)?;
    // The parent may stop a moment later. `NOWAIT` leaves its exit status for the caller.
    waitid(
        WaitId::Pid(parent),
        WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    for child in children(parent)? {
        signal(child, Signal::STOP)?;
    }
    Ok(())
}

/// Sends SIGCONT to all that [`pause`] has stopped, to the parent last: until then it does not wait for its children.
pub fn resume(parent: Pid) -> anyhow::Result<()> {
    for child in children(parent)? {
        signal(child, Signal::CONT)?;
    }
    Ok(signal(parent, Signal::CONT)?)
}

/// Sends a signal. A process that has just ended is not an error.
fn signal(process: Pid, signal: Signal) -> Result<(), Errno> {
    match kill_process(process, signal) {
        Err(Errno::SRCH) => Ok(()),
        outcome => outcome,
    }
}

/// The living children of this process.
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
        // `pid (name) state ppid …`, and the name may hold spaces and parentheses. The process may end meanwhile.
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

/// Reads a pid and its parent's pid, and returns the pid if the parent is this one.
fn child<'a>(mut fields: impl Iterator<Item = &'a str>, parent: Pid) -> Option<Pid> {
    let pid = fields.next()?.parse().ok()?;
    let of: i32 = fields.next()?.parse().ok()?;
    if of == parent.as_raw_nonzero().get() { Pid::from_raw(pid) } else { None }
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
