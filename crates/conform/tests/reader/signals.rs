//! What does `conform` leave behind when somebody stops it half-way? Nothing.

use std::process::Command;

use anyhow::ensure;

use crate::{
    conform_process::{HAS_SETSID, Reader, Started, eventually},
    tests,
};

tests![
    ctrl_c_leaves_no_program_behind,
    a_sigterm_leaves_no_program_behind,
    ctrl_c_while_the_program_starts_leaves_nothing_behind,
    ctrl_c_leaves_no_daemon_behind,
];

/// Sends a signal while a case waits for an answer that never comes.
fn stopped(signal: &str, command: &str, reader: &Reader) -> anyhow::Result<()> {
    let mut conform = Started(reader.conform(&["--restart-cmd", command])?.spawn()?);
    eventually("the program listens", || reader.listens().then_some(()))?;
    stop(&mut conform, signal)?;
    reader.is_gone()
}

fn stop(conform: &mut Started, signal: &str) -> anyhow::Result<()> {
    let pid = conform.0.id().to_string();
    ensure!(Command::new("kill").args([signal, &pid]).status()?.success(), "{signal}: no process");
    let status = eventually("conform ends", || conform.0.try_wait().transpose())??;
    ensure!(status.code() > Some(128), "it ended with {status}");
    Ok(())
}

fn ctrl_c_leaves_no_program_behind() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    stopped("-INT", &reader.command("--hang")?, &reader)
}

fn a_sigterm_leaves_no_program_behind() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    stopped("-TERM", &reader.command("--hang")?, &reader)
}

fn ctrl_c_leaves_no_daemon_behind() -> anyhow::Result<()> {
    if !HAS_SETSID {
        return Ok(());
    }
    let reader = Reader::new()?;
    let command = format!("setsid {} > /dev/null 2>&1 &", reader.command("--hang")?);
    stopped("-INT", &command, &reader)
}

fn ctrl_c_while_the_program_starts_leaves_nothing_behind() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let file = reader.file("started");
    let command = format!("echo $$ > '{file}.new'; mv '{file}.new' '{file}'; exec sleep 1000");
    let mut conform = Started(reader.conform(&["--restart-cmd", &command])?.spawn()?);
    let pid = eventually("the command runs", || std::fs::read_to_string(&file).ok())?;
    stop(&mut conform, "-INT")?;
    let alive =
        || Command::new("kill").args(["-0", pid.trim()]).output().map(|it| it.status.success());
    eventually("the command is gone", || alive().is_ok_and(|alive| !alive).then_some(()))
}
