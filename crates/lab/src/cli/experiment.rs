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
    let json = || flag("json", "One JSON object, nothing else");
    let events = || {
        flag("events", "One JSON object per line while it runs; the last has the kind `report`")
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
        .args([flag("all", "Every one, in turn"), json()])
        .arg_required_else_help(true)
        .subcommands(answer.experiments.iter().map(one))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Does what [`command`] understood. The exit code is 1 if a check failed, and 128 and the signal's number if it was
/// interrupted.
pub async fn words(answer: &Answer, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    // A statement that is slow on a busy machine is no news to whoever runs an experiment.
    log("warn,sqlx::query=error");
    // A signal drops the run, and with it everything that it started, before anything is said.
    tokio::select! {
        tried = try_claims(answer, matches) => tried,
        signal = stop_signal() => interrupted(signal),
    }
}

/// Says so, and ends as a shell expects it of a program that a signal has ended.
fn interrupted(signal: SignalKind) -> anyhow::Result<ExitCode> {
    let name = if signal == SignalKind::interrupt() { "SIGINT" } else { "SIGTERM" };
    eprintln!("interrupted by {name}: there is no verdict, and what was started for it has ended");
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

/// Runs one experiment and shows its report. Says whether it held, or could not be tried here.
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
    // First, so that whoever reads the report finds it kept. The whiteboard version's is not the answer's.
    let kept = if report.whiteboard { Ok(()) } else { results::store(&report) };
    let good = report.held() || report.skipped.is_some();
    output.end(report)?;
    kept.map(|()| good)
}

/// Who looks.
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

/// A line on standard output. If nobody reads it any more, that is an error and no panic.
fn print(line: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("standard output")
}
