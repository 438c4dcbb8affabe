//! How are all processes of a server stopped at the same moment? PostgreSQL has one for each connection, in sessions of
//! their own, so that no signal to a group reaches them all.
//!
//! Invariant: the caller is the parent of the first process and has not waited for it. While that one is stopped it waits
//! for no child either. So none of these pids can come to belong to somebody else.

use std::{fs, process::Command};

use anyhow::Context;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid},
};

/// SIGKILL to all: the nearest thing to a power cut that they can see. All are stopped before any is killed, or those
/// that live a moment longer could still write and answer.
pub fn kill(parent: Pid) -> anyhow::Result<()> {
    pause(parent)?;
    for child in children(parent)? {
        signal(child, Signal::KILL)?;
    }
    Ok(signal(parent, Signal::KILL)?)
}

/// SIGSTOP to all. The parent first: it then starts no others.
pub fn pause(parent: Pid) -> anyhow::Result<()> {
    signal(parent, Signal::STOP)?;
    // Not at once, if it was just running. What we learn here stays to be waited for.
    waitid(
        WaitId::Pid(parent),
        WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )?;
    for child in children(parent)? {
        signal(child, Signal::STOP)?;
    }
    Ok(())
}

/// SIGCONT to all that [`pause`] has stopped. The parent last: until then it waits for none of them.
pub fn resume(parent: Pid) -> anyhow::Result<()> {
    for child in children(parent)? {
        signal(child, Signal::CONT)?;
    }
    Ok(signal(parent, Signal::CONT)?)
}

/// One that has just ended by itself is as good as stopped.
fn signal(process: Pid, signal: Signal) -> Result<(), Errno> {
    match kill_process(process, signal) {
        Err(Errno::SRCH) => Ok(()),
        outcome => outcome,
    }
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
