//! `cargo run`: the guide, and every answer's own commands.

use std::{path::PathBuf, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use guide::{example, measure, program::Programs, reader::Reader, serving, shelf, site};
use lab::cli::{answers_command, answers_words, block_on, log};

fn main() -> ExitCode {
    let answers = guide::answers();
    if let Some(code) = lab::take_over(&answers) {
        return code;
    }
    let matches = command(&answers).get_matches();
    block_on(async {
        match matches.subcommand() {
            None => serve_guide(&matches).await,
            Some(("build", matches)) => build(matches),
            Some((name @ ("interview" | "quiz" | "progress"), matches)) => {
                // It waits for the reader's lines.
                interview::words::run(name, matches, &interview::workspace())
            }
            Some(("conform", matches)) => {
                let find = |name: &str| answers.iter().find(|answer| answer.name == name);
                conform::words::run(matches, |name| find(name).map(|it| it.suite.clone())).await
            }
            Some(("example", matches)) => {
                log("warn,sqlx::query=error");
                example::run(&answers, matches).await
            }
            Some(("measure", matches)) => {
                log("warn,sqlx::query=error");
                measure::run(&answers, matches).await
            }
            Some(_) => answers_words(&answers, &matches).await,
        }
    })
}

fn command(answers: &[lab::Answer]) -> Command {
    let port = Arg::new("port")
        .long("port")
        .default_value("8000")
        .value_parser(value_parser!(u16))
        .help("Where to listen on 127.0.0.1; 0: any free port");
    let open = Arg::new("open").long("open").action(ArgAction::SetTrue).help("Opens a browser");
    let folder = Arg::new("folder")
        .default_value("target/guide/site")
        .value_parser(value_parser!(PathBuf))
        .help("Where to write it");
    let command = Command::new("guide")
        .about("Worked answers: without a command, serves the guide with its live experiments")
        .arg(port)
        .arg(open)
        .subcommand(Command::new("build").about("Writes the guide as a static site").arg(folder));
    let command = command.subcommands(interview::words::commands());
    let command = command
        .subcommand(measure::command(answers))
        .subcommand(example::command(answers))
        .subcommand(conform::words::command(answers.iter().map(|answer| answer.name)));
    answers_command(command, answers)
}

async fn serve_guide(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    log("warn,sqlx::query=error");
    let port = matches.get_one::<u16>("port").copied().unwrap_or_default();
    let ready = |url: &url::Url| {
        if matches.get_flag("open") {
            open(url.as_str());
        }
    };
    serving::serve(port, Programs::built(), Reader::here(), ready).await?;
    Ok(ExitCode::SUCCESS)
}

fn build(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let folder = matches.get_one::<PathBuf>("folder").cloned().unwrap_or_default();
    site::write(&shelf::made(guide::answers())?, &folder)?;
    println!("written to {}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// Opens a browser. If none opens, the guide goes on: the address is printed.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if let Err(error) = std::process::Command::new(program).arg(url).spawn() {
        eprintln!("  no browser opened ({program}: {error})");
    }
}
