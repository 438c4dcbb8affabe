//! `conform ANSWER --target URL`: how well does the reader's own program do?

use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::{
    case::Suite,
    program::Program,
    run::{self, Result, Tried},
    target::Target,
};

/// `conform` and its options, for these answers.
pub fn command(answers: impl IntoIterator<Item = &'static str>) -> Command {
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("conform")
        .about("Tries your own program, in any language, against an answer's table of calls")
        .arg(Arg::new("answer").required(true).value_parser(Vec::from_iter(answers)))
        .arg(
            Arg::new("target")
                .long("target")
                .required(true)
                .value_name("URL")
                .help("Where your program listens"),
        )
        .arg(Arg::new("restart-cmd").long("restart-cmd").value_name("COMMAND").help(
            "Starts your program, which is then killed and started again: the crash cases run too",
        ))
        .arg(flag("load").help("The cases in which many ask at once run too"))
        .arg(flag("json").help("One JSON object, nothing else"))
}

/// Does it; `suite` knows each answer's cases. The exit code is 1 if anything is wrong.
pub async fn run(
    matches: &ArgMatches,
    suite: impl Fn(&str) -> Option<Suite>,
) -> anyhow::Result<ExitCode> {
    let name = matches.get_one::<String>("answer").context("it is required")?;
    let url = matches.get_one::<String>("target").context("it is required")?;
    let command = matches.get_one::<String>("restart-cmd").cloned();
    let json = matches.get_flag("json");
    let tried = Tried { load: matches.get_flag("load"), restart: command.is_some() };
    let program = match command {
        Some(command) => Some(Program::of(command, url).await?),
        None => None,
    };
    let target = Target::new(url, program.as_ref().map(Program::restart))?;
    let Suite { needs, cases } = suite(name).context("no such answer")?;
    if !json {
        println!("{needs}\n");
    }
    let left = cases.len();
    let results = run::run(&cases, &target, tried, |result| {
        if !json {
            println!("{}", line(result));
        }
    })
    .await?;
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
        if left > results.len() {
            println!("{} more with --load and --restart-cmd", left - results.len());
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
            "✗ {name}\n    sent   {sent}\n    came   {came}\n    wrong  {wrong}\n    says   {says}\n    \
             why    {why}"
        ),
    }
}
