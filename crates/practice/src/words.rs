//! What can a reader say? `practice`, `start`, `check`, `hint`, `solution`, `reset`.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::{desk::Desk, proof, workspace};

/// `practice` and its words.
pub fn command() -> Command {
    let which = |required| Arg::new("exercise").value_name("ANSWER/NAME").required(required);
    let all = Arg::new("all").long("all").action(ArgAction::SetTrue);
    let watch = Arg::new("watch").long("watch").action(ArgAction::SetTrue);
    Command::new("practice")
        .about("Exercises on the answers' real code; without a word, lists them")
        .subcommand(Command::new("start").about("Cuts the gap into the code").arg(which(true)))
        .subcommand(
            Command::new("check")
                .about("Runs the checks on what you wrote")
                .arg(watch.help("Again each time a file is saved")),
        )
        .subcommand(Command::new("hint").about("Shows the next hint"))
        .subcommand(Command::new("solution").about("Shows how ours differs from yours"))
        .subcommand(Command::new("reset").about("Puts the code back"))
        .subcommand(
            Command::new("prove")
                .about("For authors: shows that exercises and experiments catch what they should")
                .arg(which(false))
                .arg(all.help("Also those that have not changed since they were proved")),
        )
}

/// Does what was said. The exit code is 1 if a check failed.
pub fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut desk = Desk::open(workspace())?;
    match matches.subcommand() {
        Some(("start", matches)) => {
            let key = matches.get_one::<String>("exercise").context("it is required")?;
            desk.start(key).map(|()| ExitCode::SUCCESS)
        }
        Some(("check", matches)) if matches.get_flag("watch") => desk.watch(),
        Some(("check", _)) => {
            let good = desk.check()?;
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(("hint", _)) => desk.hint().map(|()| ExitCode::SUCCESS),
        Some(("solution", _)) => desk.solution().map(|()| ExitCode::SUCCESS),
        Some(("reset", _)) => desk.reset().map(|()| ExitCode::SUCCESS),
        Some(("prove", matches)) => {
            let key = matches.get_one::<String>("exercise").map_or("", String::as_str);
            // One that is named is proved in any case.
            let every = matches.get_flag("all") || key.contains('/');
            proof::prove(desk.workspace(), desk.exercises(), key, every)
        }
        _ => {
            desk.list();
            Ok(ExitCode::SUCCESS)
        }
    }
}
