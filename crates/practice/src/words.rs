//! Which commands are there? `practice` alone, `start`, `check`, `hint`, `solution`, `reset`, and `prove` for authors.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::{
    check::{Outcome, PATIENCE},
    desk::Desk,
    process::Stop,
    proof, watch,
};

/// `practice` and its commands.
pub fn command() -> Command {
    let which = |required| Arg::new("exercise").value_name("ANSWER/NAME").required(required);
    let all = Arg::new("all").long("all").action(ArgAction::SetTrue);
    let watch = Arg::new("watch").long("watch").action(ArgAction::SetTrue);
    let patience = Arg::new("patience")
        .long("patience")
        .value_name("SECONDS")
        .value_parser(value_parser!(u64).range(1..))
        .help("How long a test or an experiment may take [default: 120]");
    Command::new("practice")
        .bin_name("cargo practice")
        .about("Exercises on the answers' real code; without a command, lists them")
        .subcommand(Command::new("start").about("Cuts the gap into the code").arg(which(true)))
        .subcommand(
            Command::new("check")
                .about("Runs the checks on what you wrote")
                .arg(watch.help("Checks again on each save; keys: h hint, s solution, n next, q quit"))
                .arg(patience),
        )
        .subcommand(Command::new("hint").about("Shows the next hint"))
        .subcommand(Command::new("solution").about("Shows how our solution differs from yours"))
        .subcommand(Command::new("reset").about("Leaves the exercise and puts the code back"))
        .subcommand(
            Command::new("prove")
                .about(
                    "For authors: proves that exercises and experiments catch mistakes: all that have \
                     changed, or the named one",
                )
                .arg(which(false))
                .arg(all.help("Also proves those that have not changed since their last proof")),
        )
}

/// Runs the command. The exit code is 1 if a check failed.
pub fn run(matches: &ArgMatches, workspace: PathBuf) -> anyhow::Result<ExitCode> {
    let mut desk = Desk::open(workspace)?;
    let patience = |matches: &ArgMatches| {
        matches.get_one("patience").copied().map_or(PATIENCE, Duration::from_secs)
    };
    match matches.subcommand() {
        Some(("start", matches)) => {
            let key = matches.get_one::<String>("exercise").context("it is required")?;
            desk.start(key).map(|()| ExitCode::SUCCESS)
        }
        Some(("check", matches)) if matches.get_flag("watch") => {
            watch::watch(&mut desk, patience(matches))
        }
        Some(("check", matches)) => {
            Ok(match desk.check(patience(matches), &Stop::on_signals()?)? {
                Outcome::Holds => ExitCode::SUCCESS,
                Outcome::Stopped => ExitCode::from(130),
                Outcome::DoesNotCompile | Outcome::Fails { .. } => ExitCode::FAILURE,
            })
        }
        Some(("hint", _)) => desk.hint().map(|()| ExitCode::SUCCESS),
        Some(("solution", _)) => desk.solution().map(|()| ExitCode::SUCCESS),
        Some(("reset", _)) => desk.reset().map(|()| ExitCode::SUCCESS),
        Some(("prove", matches)) => {
            let key = matches.get_one::<String>("exercise").map_or("", String::as_str);
            // A named exercise or experiment is proved in any case.
            let every = matches.get_flag("all") || key.contains('/');
            proof::prove(desk.workspace(), desk.exercises(), key, every, &Stop::on_signals()?)
        }
        _ => {
            desk.list();
            Ok(ExitCode::SUCCESS)
        }
    }
}
