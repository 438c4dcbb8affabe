//! How do we end a program that may never end by itself? It gets a process group of its own. When its time is over, or
//! the reader stops it, we kill the whole group, so that everything that cargo or a test started ends too.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How often we check whether a program has ended, or has to be stopped.
const LOOK: Duration = Duration::from_millis(20);

/// Whether the reader wants to stop the running check.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A stop that Ctrl-C or SIGTERM requests. The terminal does not send these signals to the programs that we run,
    /// because those are in other process groups.
    pub fn on_signals() -> anyhow::Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0))?;
        }
        Ok(stop)
    }

    /// Requests the stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the stop was requested.
    pub fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a program ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Itself {
        /// Its exit status.
        status: ExitStatus,
        /// What it wrote to standard output.
        out: String,
        /// What it wrote to standard error.
        err: String,
    },
    /// It was killed, because its time was over.
    TimedOut,
    /// It was killed, because the reader stopped it.
    Stopped,
}

/// Runs a program to its end. Kills it, and everything that it started, after `patience` or when `stop` is requested.
pub fn run(
    command: &mut Command,
    patience: Option<Duration>,
    stop: &Stop,
) -> anyhow::Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("{} cannot be run", command.get_program().to_string_lossy()))?;
    let group = Pid::from_child(&child);
    let out = read_all(child.stdout.take().context("it is piped")?);
    let err = read_all(child.stderr.take().context("it is piped")?);
    let deadline = patience.map(|patience| Instant::now() + patience);
    // We do not yet wait for it, because until then nobody else can get the number of its group.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = loop {
        if waitid(WaitId::Pid(group), look)?.is_some() {
            // What it left running would keep the pipes open. Fails only if nothing is left.
            let _ = kill_process_group(group, Signal::KILL);
            break child.wait()?;
        }
        let late = deadline.is_some_and(|deadline| Instant::now() > deadline);
        if late || stop.is_wanted() {
            // Fails only if all of them have just ended.
            let _ = kill_process_group(group, Signal::KILL);
            child.wait()?;
            return Ok(if late { Ended::TimedOut } else { Ended::Stopped });
        }
        thread::sleep(LOOK);
    };
    let [out, err] = [out, err].map(|text| text.join().unwrap_or_default());
    Ok(Ended::Itself { status, out, err })
}

/// Reads everything from a pipe on a thread, because a full pipe would block the program.
fn read_all(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        // After an error, show what was read before it.
        let _ = pipe.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_left_running_does_not_hold_us_up() -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo done; exit 3"]);
        let Ended::Itself { status, out, .. } = run(&mut command, None, &Stop::default())? else {
            anyhow::bail!("it was killed");
        };
        assert_eq!((status.code(), out.as_str()), (Some(3), "done\n"));
        assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
        Ok(())
    }
}
