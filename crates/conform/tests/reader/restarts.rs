//! Is the reader's program really killed, however its command starts it, and never one that was there before?

use std::{fs, process::Command};

use anyhow::ensure;

use crate::{
    conform_process::{HAS_SETSID, Reader, Started, eventually, fails, succeeds},
    tests,
};

tests![
    a_command_that_stays_is_killed_and_run_again,
    a_daemon_that_leaves_its_command_is_killed_too,
    a_program_that_forgets_its_environment_is_killed_too,
    a_command_that_ends_the_old_program_itself_may_hand_it_to_somebody_else,
    a_program_that_survives_passes_no_crash_case,
    nothing_is_started_where_something_listens_already,
    a_slow_program_is_waited_for_and_the_reader_sees_it,
    a_program_that_never_answers_is_given_up_after_the_wait,
    a_command_that_fails_is_told_at_once,
];

fn a_command_that_stays_is_killed_and_run_again() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let command = reader.command("")?;
    let words = ["--restart-cmd", &command];
    let said = succeeds(&mut reader.conform(&words)?, &["4 of 4 are right"])?;
    ensure!(!said.contains("still runs"), "{said}");
    reader.is_gone()
}

fn a_daemon_that_leaves_its_command_is_killed_too() -> anyhow::Result<()> {
    if !HAS_SETSID {
        return Ok(());
    }
    let reader = Reader::new()?;
    // Without a process group in common, and without waiting for it.
    let command = format!("setsid {} > /dev/null 2>&1 &", reader.command("")?);
    succeeds(&mut reader.conform(&["--restart-cmd", &command])?, &["4 of 4 are right"])?;
    reader.is_gone()
}

fn a_program_that_forgets_its_environment_is_killed_too() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let command = format!("env -i {}", reader.command("")?);
    succeeds(&mut reader.conform(&["--restart-cmd", &command])?, &["4 of 4 are right"])?;
    reader.is_gone()
}

/// As `systemctl` does: what it starts has neither our process group nor our environment. The file has its process id.
fn elsewhere(reader: &Reader) -> anyhow::Result<String> {
    let (command, file) = (reader.command("")?, reader.file("pid"));
    Ok(format!(
        "env -i setsid sh -c 'echo $$ > {file}; exec \"$0\" \"$@\"' {command} > /dev/null 2>&1 &"
    ))
}

/// Ends what `elsewhere` has started.
fn end(reader: &Reader) -> anyhow::Result<()> {
    let pid = fs::read_to_string(reader.file("pid"))?;
    ensure!(Command::new("kill").args(["-KILL", pid.trim()]).status()?.success(), "not killed");
    reader.is_gone()
}

fn a_command_that_ends_the_old_program_itself_may_hand_it_to_somebody_else() -> anyhow::Result<()> {
    if !HAS_SETSID {
        return Ok(());
    }
    let reader = Reader::new()?;
    let old = format!("kill -KILL $(cat '{}') 2> /dev/null", reader.file("pid"));
    // The port is free when the old one is gone.
    let gone = format!("{old}; while {old}; do :; done; {}", elsewhere(&reader)?);
    let words = ["4 of 4 are right", "still runs"];
    let tried = succeeds(&mut reader.conform(&["--restart-cmd", &gone])?, &words);
    end(&reader)?;
    tried.map(drop)
}

fn a_program_that_survives_passes_no_crash_case() -> anyhow::Result<()> {
    if !HAS_SETSID {
        return Ok(());
    }
    let reader = Reader::new()?;
    let once = reader.file("once");
    let command = format!("mkdir '{once}' 2> /dev/null && {} true", elsewhere(&reader)?);
    let command = format!("{{ {command}; }} || true");
    let words = ["3 of 4 are right", "nothing was killed"];
    let tried = fails(&mut reader.conform(&["--restart-cmd", &command])?, &words);
    end(&reader)?;
    tried.map(drop)
}

fn nothing_is_started_where_something_listens_already() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let mut there: Started = reader.start("")?;
    let file = reader.file("started");
    let words = ["listens at", "already", "--restart-cmd"];
    fails(&mut reader.conform(&["--restart-cmd", &format!("touch '{file}'")])?, &words)?;
    ensure!(!fs::exists(&file)?, "the command was run");
    ensure!(there.0.try_wait()?.is_none() && reader.listens(), "what was there was killed");
    Ok(())
}

fn a_slow_program_is_waited_for_and_the_reader_sees_it() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let command = reader.command("--slow 2500")?;
    let words = ["4 of 4 are right", "waiting until your program answers", " of 60"];
    succeeds(&mut reader.conform(&["--restart-cmd", &command, "--wait", "60"])?, &words)?;
    reader.is_gone()
}

fn a_program_that_never_answers_is_given_up_after_the_wait() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let file = reader.file("pid");
    let command = format!("echo $$ > '{file}'; exec sleep 1000");
    let words = ["does not answer", "--wait"];
    fails(&mut reader.conform(&["--restart-cmd", &command, "--wait", "1"])?, &words)?;
    let pid = fs::read_to_string(&file)?;
    let alive =
        || Command::new("kill").args(["-0", pid.trim()]).output().map(|it| it.status.success());
    eventually("the command is gone", || alive().is_ok_and(|alive| !alive).then_some(()))
}

fn a_command_that_fails_is_told_at_once() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let command = "echo out of luck >&2; exit 3";
    let words = ["out of luck", "exit status: 3"];
    fails(&mut reader.conform(&["--restart-cmd", command, "--wait", "86400"])?, &words).map(drop)
}
