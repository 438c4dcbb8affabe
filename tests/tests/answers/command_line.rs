//! Do the commands do what the README says?

use std::process::{Output, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{Outcome, tests};

tests![
    list_names_every_answer_and_every_experiment,
    json_prints_one_object_and_nothing_else,
    events_are_lines_of_json_and_the_last_is_the_report,
    a_bad_parameter_is_refused_before_anything_starts,
    a_taken_port_is_an_error_that_names_the_way_out,
];

async fn run(words: &[&str]) -> anyhow::Result<Output> {
    let mut process = Command::new(std::env::current_exe()?)
        .args(words)
        .env("LAB_CHILD", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let _stdin = process.stdin.take();
    Ok(process.wait_with_output().await?)
}

async fn list_names_every_answer_and_every_experiment() -> Outcome {
    let text = String::from_utf8(run(&["list"]).await?.stdout)?;
    let json: Value = serde_json::from_slice(&run(&["list", "--json"]).await?.stdout)?;
    for (answer, listed) in guide::answers().iter().zip(json.as_array().context("an array")?) {
        ensure!(text.contains(answer.name) && listed["name"] == answer.name);
        for experiment in &answer.experiments {
            ensure!(text.contains(experiment.name), "{} is not listed", experiment.name);
        }
        let experiments = listed["experiments"].as_array().context("an array")?;
        ensure!(experiments.len() == answer.experiments.len());
    }
    Ok(())
}

async fn json_prints_one_object_and_nothing_else() -> Outcome {
    let words =
        ["url-shortener", "experiment", "race", "--rounds", "1", "--clients", "5", "--json"];
    let output = run(&words).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let keys = "answer experiment claim params build servers seconds figures tables series checks";
    for key in keys.split(' ') {
        ensure!(report.get(key).is_some(), "no {key} in {report}");
    }
    ensure!(report["params"]["clients"] == "5");
    let first = &report["checks"][0];
    for key in ["check", "expected", "seen", "held"] {
        ensure!(first.get(key).is_some(), "no {key} in {first}");
    }
    Ok(())
}

async fn events_are_lines_of_json_and_the_last_is_the_report() -> Outcome {
    let words =
        ["url-shortener", "experiment", "race", "--rounds", "1", "--clients", "5", "--events"];
    let output = run(&words).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = String::from_utf8(output.stdout)?;
    let events = events.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let (last, events) = events.split_last().context("no event")?;
    ensure!(last["kind"] == "report" && last["experiment"] == "race", "{last}");
    // The events of the run are the same as in its report.
    let told: Vec<_> = events.iter().filter(|event| event["kind"] == "check").collect();
    let checks = last["checks"].as_array().context("no checks")?;
    ensure!(told.len() == checks.len() && !checks.is_empty(), "{told:?}");
    for (told, check) in told.iter().zip(checks) {
        ensure!(told["check"] == check["check"] && told["held"] == check["held"], "{told}");
    }
    ensure!(events.iter().any(|event| event["kind"] == "progress"));
    Ok(())
}

async fn a_bad_parameter_is_refused_before_anything_starts() -> Outcome {
    let output = run(&["url-shortener", "experiment", "race", "--clients", "many"]).await?;
    ensure!(output.status.code() == Some(2), "{:?}", output.status);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(text.contains("--clients") && text.contains("many"), "{text}");
    Ok(())
}

async fn a_taken_port_is_an_error_that_names_the_way_out() -> Outcome {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = taken.local_addr()?.port().to_string();
    let output = run(&["url-shortener", "serve", "--port", &port]).await?;
    ensure!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(text.contains(&port) && text.contains("--port"), "{text}");
    Ok(())
}
