//! `conform ANSWER --target URL`: how well does the reader's own program do?

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    calls,
    case::{Kind, Suite},
    program::Program,
    run::{self, Result, Tried},
    target::Target,
};

/// `conform` and its options, for these answers.
pub fn command(answers: impl IntoIterator<Item = &'static str>) -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    let target =
        Arg::new("target").long("target").value_name("URL").help("Where your program listens");
    let restart = Arg::new("restart-cmd").long("restart-cmd").value_name("COMMAND").long_help(
        "Starts your program, which must not run yet. It is killed (SIGKILL) and started again: the crash cases run \
         too. A command may return when it has put your program into the background. If it hands it to another \
         program (systemctl restart), it has to end the old one itself",
    );
    let wait = Arg::new("wait").long("wait").value_name("SECONDS").default_value("120");
    let wait = wait.value_parser(value_parser!(u64).range(1..=86_400));
    Command::new("conform")
        .about("Tries your own program, in any language, against an answer's table of calls")
        .arg(Arg::new("answer").required(true).value_parser(Vec::from_iter(answers)))
        .arg(flag("show").help("Prints the table of calls"))
        .arg(target.required_unless_present("show"))
        .arg(restart.help("Starts your program; the crash cases run too"))
        .arg(wait.help("How long your program may take until it answers"))
        .arg(flag("load").help("The cases in which many ask at once run too"))
        .arg(flag("json").help("One JSON object, nothing else"))
}

/// Does it; `suite` knows each answer's cases. The exit code is 1 if anything is wrong. On Ctrl-C and SIGTERM, all that
/// was started is killed.
pub async fn run(
    matches: &ArgMatches,
    suite: impl Fn(&str) -> Option<Suite>,
) -> anyhow::Result<ExitCode> {
    let name = matches.get_one::<String>("answer").context("it is required")?;
    let suite = suite(name).context("no such answer")?;
    if matches.get_flag("show") {
        print!("{}", calls::in_terminal(&suite.page()));
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything is started.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // The work owns the program, and is dropped when a signal comes.
    tokio::select! {
        tried = try_suite(name, &suite, matches) => tried,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = hang_up.recv() => Ok(ExitCode::from(129)),
    }
}

async fn try_suite(name: &str, suite: &Suite, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let url = matches.get_one::<String>("target").context("it is required")?;
    let command = matches.get_one::<String>("restart-cmd").cloned();
    let json = matches.get_flag("json");
    let tried = Tried { load: matches.get_flag("load"), restart: command.is_some() };
    let wait = matches.get_one("wait").copied().map(Duration::from_secs).context("a default")?;
    let program = match command {
        Some(command) => Some(Program::of(command, url, wait).await?),
        None => None,
    };
    let target = Target::new(url, program.as_ref().map(Program::restart))?;
    if !json {
        println!("{}\nThe table of calls: conform {name} --show\n", suite.needs());
    }
    let results = run::run(&suite.cases, &target, tried, |result| {
        if !json {
            println!("{}", line(result));
        }
    })
    .await?;
    if program.is_some() {
        // Killed, if it can be.
        drop((program, target));
        if Target::new(url, None)?.answers().await {
            eprintln!("  your program still runs: its command has handed it to another program");
        }
    }
    let good = results.iter().filter(|result| result.wrong.is_none()).count();
    if json {
        let report = serde_json::json!({
            "answer": name,
            "target": url,
            "right": good,
            "tried": results.len(),
            "cases": results,
        });
        println!("{report}");
    } else {
        println!("\n{good} of {} are right", results.len());
        for (kind, option) in [(Kind::Load, "--load"), (Kind::Restart, "--restart-cmd")] {
            let left = suite.cases.iter().filter(|it| it.kind == kind && !tried.includes(kind));
            match left.count() {
                0 => {}
                left => println!("{left} more with {option}"),
            }
        }
    }
    Ok(if good == results.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(result: &Result) -> String {
    let Result { case, says, why, sent, came, wrong, .. } = result;
    let name = case.replace('_', " ");
    match wrong {
        None => format!("✓ {name}: {sent} → {came}"),
        Some(wrong) => format!(
            "✗ {name}\n    wrong  {wrong}\n    sent   {sent}\n    came   {came}\n    table  {says}\n    why    {why}"
        ),
    }
}
