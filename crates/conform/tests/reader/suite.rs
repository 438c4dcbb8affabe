//! What is tried here? A program that says its process id, and remembers what it was told.

use std::process::ExitCode;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{equal, expect, json_of, status},
    target::Target,
    words,
};
use serde_json::json;

cases! {
    Plain it_says_hello: "GET /hello: 200", "Politeness.";
    Plain it_answers_everything: "GET /crash: 200", "A handler that crashes answers nobody.";
    Plain it_answers_in_time: "GET /slow: 200", "Nobody waits for ever.";
    Restart it_remembers_after_a_kill: "PUT /word: 204; after SIGKILL, GET /word is the word", "204 is a promise.";
}

/// `conform memory …`.
pub fn conform() -> ExitCode {
    let suite = Suite { calls: include_str!("calls.md"), cases: cases() };
    let matches = words::command(["memory"]).get_matches_from(std::env::args().skip(1));
    let runtime = tokio::runtime::Runtime::new().expect("a process can have a runtime");
    let outcome = runtime.block_on(words::run(&matches, |_| Some(suite.clone())));
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn it_says_hello(target: &Target) -> Outcome {
    status(&target.get("hello").await?, 200)
}

async fn it_answers_everything(target: &Target) -> Outcome {
    status(&target.get("crash").await?, 200)
}

async fn it_answers_in_time(target: &Target) -> Outcome {
    status(&target.get("slow").await?, 200)
}

async fn it_remembers_after_a_kill(target: &Target) -> Outcome {
    let before = json_of(target.get("process").await?, 200).await?;
    let word = json!({ "word": target.tag() });
    let put = target.request(reqwest::Method::PUT, "word").json(&word);
    status(&target.send(put).await?, 204)?;
    target.restart().await?;
    let after = json_of(target.get("process").await?, 200).await?;
    expect(before["id"] != after["id"], "another process", &after["id"])?;
    equal("the word", json_of(target.get("word").await?, 200).await?, word)
}
