//! `conform ANSWER --target URL`: how well does the reader's own program do?

use std::{cmp::Reverse, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    calls,
    case::{Case, Kind, Suite},
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
        "The command that starts your program, which must not run yet. With it the crash cases run too: they kill your \
         program (SIGKILL) and start it again. The command may return after it has put your program into the background. \
         If it hands your program to another one (systemctl restart), it has to end the old program itself",
    );
    let case = Arg::new("case").long("case").value_name("NAME").action(ArgAction::Append);
    let wait = Arg::new("wait").long("wait").value_name("SECONDS").default_value("120");
    let wait = wait.value_parser(value_parser!(u64).range(1..=86_400));
    Command::new("conform")
        .about("Tries your own program, in any language, against an answer's table of calls")
        .arg(Arg::new("answer").required(true).value_parser(Vec::from_iter(answers)))
        .arg(flag("show").help("Prints the table of calls"))
        .arg(target.required_unless_present("show"))
        .arg(
            case.help("Only the case of this name, or all whose names contain it; can be repeated"),
        )
        .arg(restart.help("The command that starts your program; the crash cases run too"))
        .arg(wait.help("How long your program may take until it answers"))
        .arg(flag("load").help("The cases with many clients at once run too"))
        .arg(flag("json").help("Prints one JSON object, nothing else"))
}

/// Runs the command; `suite` returns an answer's cases. The exit code is 1 if anything is wrong. Ctrl-C, SIGTERM and
/// SIGHUP kill everything that was started.
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
    // Listen for signals before anything is started.
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
    let names: Vec<_> = matches.get_many::<String>("case").into_iter().flatten().collect();
    let cases = chosen(&suite.cases, &names)?;
    ensure!(
        cases.iter().any(|case| tried.includes(case.kind)),
        "there is no case to try: {}",
        left(&cases, tried).join(", ")
    );
    let wait = matches.get_one("wait").copied().map(Duration::from_secs).context("a default")?;
    let program = match command {
        Some(command) => Some(Program::of(command, url, wait).await?),
        None => None,
    };
    let target = Target::new(url, program.as_ref().map(Program::restart))?;
    if !json {
        println!("{}\nThe table of calls: conform {name} --show\n", suite.needs());
    }
    let results = run::run(&cases, &target, tried, |result| {
        if !json {
            println!("{}", line(result));
        }
    })
    .await?;
    if program.is_some() {
        // Kills the program, if that is possible.
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
        for left in left(&cases, tried) {
            println!("{left}");
        }
    }
    Ok(if good == results.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cases with these names or parts of names, in the order of the table. All cases if no name is given.
fn chosen(cases: &[Case], names: &[&String]) -> anyhow::Result<Vec<Case>> {
    let mut chosen = vec![names.is_empty(); cases.len()];
    for name in names {
        // The results show names with spaces.
        let name = name.replace(' ', "_");
        let is_whole = cases.iter().any(|case| case.name == name);
        let is_meant =
            |case: &Case| if is_whole { case.name == name } else { case.name.contains(&name) };
        ensure!(
            cases.iter().any(is_meant),
            "no case has {name} in its name. Near it are\n    {}",
            nearest(cases, &name).join("\n    ")
        );
        for (case, chosen) in cases.iter().zip(&mut chosen) {
            *chosen |= is_meant(case);
        }
    }
    Ok(cases.iter().zip(chosen).filter_map(|(case, chosen)| chosen.then_some(*case)).collect())
}

/// The five names that have most of this one's pairs of letters.
fn nearest(cases: &[Case], name: &str) -> Vec<&'static str> {
    let pairs =
        |name: &str| -> Vec<(char, char)> { name.chars().zip(name.chars().skip(1)).collect() };
    let in_common = |other: &str| {
        let other = pairs(other);
        pairs(name).into_iter().filter(|pair| other.contains(pair)).count()
    };
    let mut names: Vec<_> = cases.iter().map(|case| case.name).collect();
    names.sort_by_key(|other| Reverse(in_common(other)));
    names.truncate(5);
    names
}

/// How many of these cases are not tried, and the option that tries them.
fn left(cases: &[Case], tried: Tried) -> Vec<String> {
    let options = [(Kind::Load, "--load"), (Kind::Restart, "--restart-cmd")];
    let left = options.into_iter().filter_map(|(kind, option)| {
        let left = cases.iter().filter(|it| it.kind == kind && !tried.includes(kind)).count();
        (left > 0).then(|| format!("{left} more with {option}"))
    });
    left.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A case that nobody runs.
    fn case(name: &'static str) -> Case {
        Case { name, kind: Kind::Plain, says: "", why: "", run: |_| Box::pin(async { Ok(()) }) }
    }

    fn choice(names: &[&str]) -> anyhow::Result<Vec<&'static str>> {
        let cases = ["a_link", "a_link_ends", "an_alias", "a_code"].map(case);
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let chosen = chosen(&cases, &names.iter().collect::<Vec<_>>())?;
        Ok(chosen.iter().map(|case| case.name).collect())
    }

    #[test]
    fn a_whole_name_means_one_case_and_a_part_means_all_that_have_it() {
        assert_eq!(choice(&[]).unwrap().len(), 4);
        assert_eq!(choice(&["a_link"]).unwrap(), ["a_link"]);
        assert_eq!(choice(&["a link ends"]).unwrap(), ["a_link_ends"], "as the results show it");
        assert_eq!(choice(&["link"]).unwrap(), ["a_link", "a_link_ends"]);
        let in_the_tables_order = ["a_link", "a_link_ends", "an_alias"];
        assert_eq!(choice(&["alias", "link", "ends"]).unwrap(), in_the_tables_order);
    }

    #[test]
    fn a_name_that_no_case_has_is_an_error_that_begins_with_the_nearest() {
        let error = choice(&["link", "aliass"]).unwrap_err().to_string();
        assert!(error.starts_with("no case has aliass in its name"), "{error}");
        let near: Vec<_> = error.lines().skip(1).map(str::trim).collect();
        assert_eq!(near[0], "an_alias", "{error}");
    }
}
