//! Does any data of a reader's change? On servers that a reader gave, we touch only what we made. And we delete what we
//! made, even if a run was killed.

mod left_behind;
mod pooler;
mod reader;
mod untouched;

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use lab::Service;
use lab::harness::Trial;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use self::reader::Reader;
use crate::support::Outcome;

pub fn tests() -> Vec<Trial> {
    [left_behind::tests(), pooler::tests(), untouched::tests()].into_iter().flatten().collect()
}

/// This executable with these arguments, given the reader's servers.
async fn run(reader: &Reader, words: &[&str]) -> anyhow::Result<Output> {
    let mut process = command(reader, words)?.spawn()?;
    // The child ends when this pipe closes.
    let _stdin = process.stdin.take();
    // A child that wrongly serves would never end; three nodes of RabbitMQ take minutes to start on a busy machine.
    let ended = timeout(Duration::from_mins(10), process.wait_with_output()).await;
    Ok(ended.with_context(|| format!("{words:?} does not end"))??)
}

fn command(reader: &Reader, words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    for service in Service::STACK {
        if let Ok(url) = reader.url(service) {
            command.env(service.variable(), url);
        }
    }
    command.args(words).env("LAB_CHILD", "1").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Runs an experiment to its end. Whether its checks hold is tested elsewhere.
async fn experiment(reader: &Reader, answer: &str, name: &str, words: &[&str]) -> Outcome {
    let words = [&[answer, "experiment", name, "--json"], words].concat();
    let output = run(reader, &words).await?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(report.get("error").is_none_or(Value::is_null), "{answer} {name}: {report}");
    Ok(())
}

/// A short experiment with a database.
async fn race(reader: &Reader) -> Outcome {
    experiment(reader, "url-shortener", "race", &["--rounds", "1", "--clients", "5"]).await
}

fn quick(answer: &str, experiment: &str) -> anyhow::Result<&'static [&'static str]> {
    let answers = guide::answers();
    let answer = answers.iter().find(|it| it.name == answer).context("no such answer")?;
    Ok(answer.experiment(experiment).context("no such experiment")?.quick)
}

/// The fresh databases that we made, and those that are still being made.
async fn fresh(reader: &Reader) -> anyhow::Result<Vec<String>> {
    let query = r#"
        select datname::text
        from pg_database
        where datname ~ '^worked_answers_fresh_[0-9a-f]{16}$'
            and datname <> 'worked_answers_fresh_0123456789abcdef'"#;
    reader.rows("postgres", query).await
}

async fn names(reader: &Reader) -> anyhow::Result<Vec<String>> {
    reader.rows("postgres", "select datname::text from pg_database").await
}

/// Makes a database of this name with this comment.
async fn plant(reader: &Reader, name: &str, comment: &str) -> Outcome {
    reader.sql("postgres", &format!("create database {name}")).await?;
    reader.sql("postgres", &format!("comment on database {name} is '{comment}'")).await?;
    reader.sql(name, "create table mine as select 7 as n").await
}
