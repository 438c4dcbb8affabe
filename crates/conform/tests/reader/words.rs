//! Does `conform` say what a reader needs to know, and accept what a reader types?

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use conform::{run::Tried, target::Target};

use crate::{
    conform_process::{Reader, conform_at, fails, succeeds},
    tests,
};

tests![
    a_target_without_a_scheme_is_told_the_right_one,
    localhost_is_a_target,
    nothing_at_the_target_is_told_with_the_way_out,
    a_case_that_gets_no_answer_shows_its_own_request,
    a_case_that_asks_nothing_shows_nothing_of_the_case_before,
    a_wrong_answer_is_shown_with_its_own_request,
    show_prints_the_table_without_a_target,
    the_table_of_calls_is_named_before_the_cases,
    only_the_cases_that_are_named_are_tried,
    a_name_that_no_case_has_is_refused_before_anything_is_sent,
    a_run_without_a_case_is_an_error_that_says_what_it_takes,
    retry_after_is_honoured,
    a_retry_after_of_an_hour_is_not_waited_for,
];

fn a_target_without_a_scheme_is_told_the_right_one() -> anyhow::Result<()> {
    for target in ["127.0.0.1:9000", "localhost:9000"] {
        fails(&mut conform_at(target, &[])?, &[&format!("write http://{target}")])?;
    }
    fails(&mut conform_at("https://127.0.0.1:9000", &[])?, &["HTTPS"])?;
    Ok(())
}

fn localhost_is_a_target() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let (target, command) = (format!("http://localhost:{}/", reader.port), reader.command("")?);
    succeeds(&mut conform_at(&target, &["--restart-cmd", &command])?, &["4 of 4 are right"])?;
    Ok(())
}

fn nothing_at_the_target_is_told_with_the_way_out() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    fails(&mut reader.conform(&[])?, &["nothing answers", "Start your program"])?;
    Ok(())
}

fn a_case_that_gets_no_answer_shows_its_own_request() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let _program = reader.start("--crash")?;
    let said = fails(&mut reader.conform(&[])?, &["2 of 3 are right"])?;
    let case = said.split("✗ it answers everything").nth(1).context("no such case")?;
    let case = case.split('✗').next().unwrap_or_default();
    for word in ["sent   GET /crash", "came   no answer", "expected an answer, got none"] {
        ensure!(case.contains(word), "{word:?} is missing in {case}");
    }
    ensure!(!case.contains("hello"), "it shows another case's request: {case}");
    Ok(())
}

mod two_cases {
    use anyhow::bail;
    use conform::{case::Outcome, cases, expect::status, target::Target};

    cases! {
        Plain it_asks: "GET /: 200", "Somebody has to.";
        Plain it_asks_nothing: "Nothing.", "Nobody has to.";
    }

    async fn it_asks(target: &Target) -> Outcome {
        status(&target.get("").await?, 200)
    }

    async fn it_asks_nothing(_: &Target) -> Outcome {
        bail!("something else is wrong")
    }
}

fn a_case_that_asks_nothing_shows_nothing_of_the_case_before() -> anyhow::Result<()> {
    let target = Target::new(&busy("1")?, None)?;
    let tried = Tried { load: false, restart: false };
    let cases = two_cases::cases();
    let runtime = tokio::runtime::Runtime::new()?;
    let results = runtime.block_on(conform::run::run(&cases, &target, tried, |_| {}))?;
    ensure!(results[0].sent == "GET /" && results[0].wrong.is_none(), "{:?}", results[0]);
    ensure!(results[1].sent.is_empty() && results[1].came.is_empty(), "{:?}", results[1]);
    Ok(())
}

mod both_first {
    use anyhow::Context;
    use conform::{
        case::Outcome,
        cases,
        expect::{json_of, status},
        http::problem,
        target::Target,
    };

    cases! {
        Plain it_sends_two: "GET /first: 404", "The first is looked at when the second is answered.";
        Plain it_wants_a_problem: "GET /first: a problem", "Errors are read by programs.";
        Plain it_wants_json: "GET /first: JSON", "Nothing else can be parsed.";
    }

    async fn it_sends_two(target: &Target) -> Outcome {
        let (first, _second) = (target.get("first").await?, target.get("second").await?);
        status(&first, 404).context("looked at late")
    }

    async fn it_wants_a_problem(target: &Target) -> Outcome {
        let (first, _second) = (target.get("first").await?, target.get("second").await?);
        problem(first, 200).await.map(drop)
    }

    async fn it_wants_json(target: &Target) -> Outcome {
        let (first, _second) = (target.get("first").await?, target.get("second").await?);
        json_of(first, 200).await.map(drop)
    }
}

fn a_wrong_answer_is_shown_with_its_own_request() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let _program = reader.start("")?;
    let target = Target::new(&format!("http://127.0.0.1:{}", reader.port), None)?;
    let tried = Tried { load: false, restart: false };
    let cases = both_first::cases();
    let runtime = tokio::runtime::Runtime::new()?;
    let results = runtime.block_on(conform::run::run(&cases, &target, tried, |_| {}))?;
    for result in results {
        ensure!(result.wrong.is_some() && result.sent == "GET /first", "{result:?}");
    }
    Ok(())
}

fn show_prints_the_table_without_a_target() -> anyhow::Result<()> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let words =
        ["Your program needs a file.", "PUT /word", "{\"word\": \"tree\"}", "essential", "405"];
    succeeds(command.args(["conform", "memory", "--show"]), &words)?;
    Ok(())
}

fn the_table_of_calls_is_named_before_the_cases() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let _program = reader.start("")?;
    let words = ["Your program needs a file.", "conform memory --show", "3 of 3 are right"];
    let said = succeeds(&mut reader.conform(&[])?, &words)?;
    ensure!(said.contains("1 more with"), "{said}");
    Ok(())
}

fn only_the_cases_that_are_named_are_tried() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    // One of the other cases would fail.
    let _program = reader.start("--crash")?;
    for (names, right) in [
        (&["--case", "hello"][..], "1 of 1 are right"),
        (&["--case", "it says hello"], "1 of 1 are right"),
        (&["--case", "hello", "--case", "it_answers_in_time"], "2 of 2 are right"),
    ] {
        let said = succeeds(&mut reader.conform(names)?, &["it says hello", right])?;
        ensure!(!said.contains("everything") && !said.contains("more with"), "{said}");
    }
    Ok(())
}

fn a_name_that_no_case_has_is_refused_before_anything_is_sent() -> anyhow::Result<()> {
    // Nothing listens there.
    let words = ["no case has helo in its name", "it_says_hello"];
    let said = fails(&mut Reader::new()?.conform(&["--case", "helo"])?, &words)?;
    ensure!(!said.contains("nothing answers"), "{said}");
    Ok(())
}

fn a_run_without_a_case_is_an_error_that_says_what_it_takes() -> anyhow::Result<()> {
    let reader = Reader::new()?;
    let _program = reader.start("")?;
    let words = ["no case to try", "1 more with --restart-cmd"];
    fails(&mut reader.conform(&["--case", "after_a_kill"])?, &words).map(drop)
}

/// Answers each connection with 503 and this Retry-After, and from the second on with 200.
fn busy(retry_after: &'static str) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for (n, connection) in listener.incoming().flatten().enumerate() {
            let mut connection = connection;
            let _ = connection.read(&mut [0; 4096]);
            let status = if n == 0 { "503 Busy" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n");
            let _ = write!(connection, "{head}retry-after: {retry_after}\r\n\r\n");
        }
    });
    Ok(url)
}

/// The status of the last answer, and how long it took.
fn patiently(url: &str) -> anyhow::Result<(u16, Duration)> {
    let target = Target::new(url, None)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let begun = Instant::now();
    let request = || target.request(reqwest::Method::GET, "");
    let (response, unsure) = runtime.block_on(target.send_patiently(request))?;
    ensure!(unsure == (response.status() == 200), "it does not tell of the 503");
    Ok((response.status().as_u16(), begun.elapsed()))
}

fn retry_after_is_honoured() -> anyhow::Result<()> {
    let (status, took) = patiently(&busy("1")?)?;
    ensure!(status == 200 && took >= Duration::from_secs(1), "{status} after {took:?}");
    Ok(())
}

fn a_retry_after_of_an_hour_is_not_waited_for() -> anyhow::Result<()> {
    for retry_after in ["3600", "18446744073709551615", "Fri, 31 Dec 2100 23:59:59 GMT"] {
        let (status, took) = patiently(&busy(retry_after)?)?;
        ensure!(status == 503 && took < Duration::from_secs(10), "{status} after {took:?}");
    }
    Ok(())
}
