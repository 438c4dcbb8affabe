//! How is an experiment run from the command line? For a person, or for a program with `--json` or `--events`.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::{signal::unix::SignalKind, sync::mpsc::unbounded_channel};

use super::log;
use crate::{
    Answer, Experiment, Report,
    recorder::Event,
    report::terminal::{self, Progress},
    results,
    serve::stop_signal,
    whiteboard,
};

/// `experiment NAME` with the parameters of each, and `experiment --all`.
pub fn command(answer: &Answer) -> Command {
    let json = || flag("json", "Prints one JSON object, nothing else");
    let events = || {
        flag(
            "events",
            "Prints one JSON object per line while it runs; the last has the kind `report`",
        )
        .conflicts_with("json")
    };
    let has_whiteboard = answer.serve.has_whiteboard();
    let whiteboard = || has_whiteboard.then(|| whiteboard::flag("Tries the whiteboard version"));
    let one = |experiment: &Experiment| {
        let command = experiment.command().no_binary_name(false);
        command.args([json(), events()]).args(whiteboard())
    };
    Command::new("experiment")
        .about("Tries a claim on real servers")
        .args([flag("all", "Runs every experiment, one after the other"), json()])
        .arg_required_else_help(true)
        .subcommands(answer.experiments.iter().map(one))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Runs what [`command`] parsed. The exit code is 1 if a check failed, and 128 plus the signal's number if a signal
/// interrupted the run.
pub async fn words(answer: &Answer, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    // Without sqlx's warnings about slow statements, which any busy machine causes.
    log("warn,sqlx::query=error");
    // A signal drops the run, and with it everything that it started, before the message is printed.
    tokio::select! {
        tried = try_claims(answer, matches) => tried,
        signal = stop_signal() => interrupted(signal),
    }
}

/// Prints that the run was interrupted, and returns the exit code that a shell expects after a signal.
fn interrupted(signal: SignalKind) -> anyhow::Result<ExitCode> {
    let name = if signal == SignalKind::interrupt() { "SIGINT" } else { "SIGTERM" };
    eprintln!(
        "interrupted by {name}: there is no verdict, and everything that the run started has ended"
    );
    Ok(ExitCode::from(128 + u8::try_from(signal.as_raw_value())?))
}

async fn try_claims(answer: &Answer, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let json = matches.get_flag("json");
    let mut good = true;
    if matches.get_flag("all") {
        for experiment in &answer.experiments {
            let defaults = experiment.command().get_matches_from::<[&str; 0], _>([]);
            good &= try_claim(answer, experiment, &defaults, Output::new(json, false)).await?;
        }
    } else {
        let (name, matches) = matches.subcommand().context("name an experiment, or --all")?;
        let experiment = answer.experiment(name).context("no such experiment")?;
        let output = Output::new(json || matches.get_flag("json"), matches.get_flag("events"));
        if whiteboard::is_wanted(matches) {
            whiteboard::ask_for();
        }
        good = try_claim(answer, experiment, matches, output).await?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one experiment and shows its report. Returns true if the claim held or the experiment was skipped.
async fn try_claim(
    answer: &Answer,
    experiment: &Experiment,
    matches: &ArgMatches,
    mut output: Output,
) -> anyhow::Result<bool> {
    let (events, mut seen) = unbounded_channel();
    let run = async { Ok(experiment.run_matches(answer.into(), matches, events).await) };
    let show = async {
        while let Some(event) = seen.recv().await {
            output.show(&event)?;
        }
        anyhow::Ok(())
    };
    // If the reader of the events has gone, the run is dropped, and with it everything that it started.
    let (report, ()) = tokio::try_join!(run, show)?;
    // Keep the report before printing it, so that its reader finds it kept. A report on the whiteboard version is not
    // kept, because it is not about the answer.
    let kept = if report.whiteboard { Ok(()) } else { results::store(&report) };
    let good = report.held() || report.skipped.is_some();
    output.end(report)?;
    kept.map(|()| good)
}

/// Who reads the output.
enum Output {
    Person(Progress),
    Json,
    Events,
}

impl Output {
    fn new(json: bool, events: bool) -> Self {
        match (json, events) {
            (_, true) => Self::Events,
            (true, false) => Self::Json,
            (false, false) => Self::Person(Progress::new()),
        }
    }

    fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        match self {
            Self::Person(progress) => progress.show(event),
            Self::Json => {}
            Self::Events => print(&serde_json::to_string(event)?)?,
        }
        Ok(())
    }

    fn end(self, report: Report) -> anyhow::Result<()> {
        let text = match self {
            Self::Person(progress) => {
                drop(progress);
                terminal::show(&report)
            }
            Self::Json => serde_json::to_string(&report)?,
            Self::Events => serde_json::to_string(&Event::Report(Box::new(report)))?,
        };
        print(&text)
    }
}

/// Prints a line on standard output. A closed pipe is an error and not a panic.
fn print(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("standard output")
}
