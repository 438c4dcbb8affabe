//! Is the chapter's table of the whiteboard version's mistakes true? All cases run against that version, and exactly
//! those in the table must fail. Each experiment in the table runs against it, and at least one check must fail.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, bail, ensure};
use conform::run::{self, Tried};
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::{Completion, Serve, trial};
use crate::{
    Answer, Report,
    child::{self, this_program},
    cli::block_on,
    mistakes::Mistakes,
    whiteboard::ask_for,
};

/// Set in the environment of a test binary that has to try its cases against the whiteboard version, and do nothing
/// else.
const CASES: &str = "LAB_WHITEBOARD_CASES";

/// If this process was started to try the cases against the whiteboard version, does that, and prints the failed cases
/// with their errors as JSON.
pub(super) fn take_over(answer: &Answer, serve: Serve) -> Option<ExitCode> {
    std::env::var_os(CASES)?;
    ask_for();
    Some(block_on(async {
        let served = serve().await?;
        let all = Tried { load: true, restart: true };
        let results = run::run(&answer.suite.cases, &served.target()?, all, |_| {}).await?;
        let wrong = results.iter().filter_map(|result| Some((result.case, result.wrong.as_ref()?)));
        println!("{}", serde_json::to_string(&wrong.collect::<Vec<_>>())?);
        Ok(ExitCode::SUCCESS)
    }))
}

/// One test for the cases, and one for each experiment in the table.
pub(super) fn trials(answer: &Answer) -> Vec<super::Trial> {
    if !answer.serve.has_whiteboard() {
        return Vec::new();
    }
    let mistakes = fs::read_to_string(Path::new(answer.folder).join("chapter.md"))
        .map_err(Into::into)
        .and_then(|chapter| Mistakes::read(answer, &chapter));
    let Mistakes { cases, experiments } = match mistakes {
        Ok(table) => table,
        Err(error) => {
            let error = format!("chapter.md: {error:#}");
            let broken = || async move { bail!("{error}") };
            return vec![trial(
                "whiteboard",
                "the_table_of_what_it_gets_wrong_can_be_read",
                broken,
            )];
        }
    };
    let mut trials =
        vec![trial("whiteboard", "exactly_the_cases_in_the_table_fail", || async move {
            exactly_these_cases_fail(&cases).await
        })];
    for name in experiments {
        let answer = answer.clone();
        trials.push(trial("whiteboard", &format!("{name}_fails"), || async move {
            a_check_fails(&answer, &name).await
        }));
    }
    trials
}

async fn exactly_these_cases_fail(expected: &BTreeSet<String>) -> anyhow::Result<Completion> {
    let mut command = Command::new(this_program()?);
    command.env(CASES, "1");
    let failed: Vec<(String, String)> = output(&mut command).await?;
    let names: BTreeSet<_> = failed.iter().map(|(name, _)| name.clone()).collect();
    let passed: Vec<_> = expected.difference(&names).collect();
    let missing: Vec<_> = failed.iter().filter(|(name, _)| !expected.contains(name)).collect();
    ensure!(
        passed.is_empty() && missing.is_empty(),
        "the whiteboard version passes what the table says it fails: {passed:#?}\n\
         and it fails what is not in the table: {missing:#?}"
    );
    Ok(Completion::Completed)
}

async fn a_check_fails(answer: &Answer, name: &str) -> anyhow::Result<Completion> {
    let experiment = answer.experiment(name).context("no such experiment")?;
    let mut command = child::command(this_program()?);
    command.args([answer.name, "experiment", name]).args(experiment.quick);
    let report: Report = output(command.args(["--whiteboard", "--json"])).await?;
    if let Some(why) = report.skipped {
        return Ok(Completion::ignored_with(why));
    }
    if let Some(error) = report.error {
        bail!("it ended without a verdict: {error}");
    }
    ensure!(
        report.checks.iter().any(|check| !check.held),
        "every check holds: {:#?}",
        report.checks
    );
    Ok(Completion::Completed)
}

/// What a program prints on standard output.
async fn output<T: DeserializeOwned>(command: &mut Command) -> anyhow::Result<T> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn()?;
    // A child of ours ends when its standard input is closed.
    let _stdin = process.stdin.take();
    let output = process.wait_with_output().await?;
    let words = || format!("{}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(words)
}
