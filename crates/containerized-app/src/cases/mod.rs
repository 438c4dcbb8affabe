//! The table of calls.

use conform::{
    bodies::refuses_bad_bodies,
    case::{Outcome, Suite},
    cases,
    expect::{equal, expect, integer, json_of, list, status, text},
    http::{header, invalid, lives_and_is_ready, not_allowed, not_found},
    target::Target,
};
use reqwest::Method;
use serde_json::{Value, json};

cases! {
    Plain the_root_says_hello: "GET /: 200 and a message", "Somebody has to see that it works.";
    Plain a_job_is_answered_when_it_is_done: "POST /jobs: 200 and the job, not before its time", "An answer means that the work is done, so that a client may rely on it.";
    Plain twenty_jobs_run_at_the_same_time: "POST /jobs: twenty at once take as long as one", "Jobs wait for others. A process that does one after another stands still meanwhile.";
    Plain a_job_that_is_none_is_refused: "A bad body of POST /jobs: 400, 413, 415 or 422, and the problem names the field", "One bad client must not cost the others anything.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "An orchestrator restarts what is not alive, and sends requests to what is ready.";
    Plain metrics_are_text_that_a_monitor_reads: "GET /metrics: 200, text, with the jobs that are done and in flight", "What is not counted cannot be scaled.";
    Plain who_says_which_rights_and_limits_the_process_has: "GET /who: 200, its user, number, capabilities and limits", "A container that runs as root looks like any other from outside.";
    Plain memory_is_taken_and_given_back: "POST /eat?mib=1: 200. Without a good number: 422", "A limit shows only when something takes memory.";
    Plain orphans_can_be_left_behind: "POST /fork?children=3: 200, or 501 in an image without a shell. Without a good number: 422", "Number one has to collect them.";
    Plain what_is_not_there_is_not_found: "An unknown path: 404", "Paths are input too.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite { calls: include_str!("calls.md"), cases: cases() }
}

fn good() -> Value {
    json!({ "name": "report", "milliseconds": 20 })
}

async fn the_root_says_hello(target: &Target) -> Outcome {
    let hello = json_of(target.get("").await?, 200).await?;
    let message = text(&hello, "message")?;
    expect(!message.is_empty(), "a message", message)
}

async fn a_job_is_answered_when_it_is_done(target: &Target) -> Outcome {
    for (name, milliseconds) in [("report", 0), ("Größe 1", 300)] {
        let asked = json!({ "name": name, "milliseconds": milliseconds });
        let begun = std::time::Instant::now();
        let job = json_of(target.post("jobs", &asked).await?, 200).await?;
        let took = u64::try_from(begun.elapsed().as_millis())?;
        equal("the field `name`", text(&job, "name")?, name)?;
        equal("the field `milliseconds`", integer(&job, "milliseconds")?, milliseconds)?;
        expect(took >= milliseconds, format!("no answer before {milliseconds} ms"), took)?;
    }
    Ok(())
}

async fn twenty_jobs_run_at_the_same_time(target: &Target) -> Outcome {
    let asked = json!({ "name": "report", "milliseconds": 400 });
    let begun = std::time::Instant::now();
    let jobs = (0..20).map(|_| target.post("jobs", &asked));
    for answer in futures_util::future::join_all(jobs).await {
        status(&answer?, 200)?;
    }
    // One after another, they would take eight seconds.
    let took = begun.elapsed().as_secs_f64();
    expect(took < 4.0, "twenty jobs of 0.4 s in less than 4 s", took)
}

async fn a_job_that_is_none_is_refused(target: &Target) -> Outcome {
    refuses_bad_bodies(target, || target.request(Method::POST, "jobs"), &good()).await?;
    for (field, value) in [
        ("milliseconds", json!(-1)),
        ("milliseconds", json!(10_001)),
        ("milliseconds", json!(1.5)),
        ("name", json!("")),
        ("name", json!("a".repeat(101))),
        ("name", json!("two\nlines")),
    ] {
        let mut bad = good();
        bad[field] = value;
        invalid(target.post("jobs", &bad).await?, field).await?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}

async fn metrics_are_text_that_a_monitor_reads(target: &Target) -> Outcome {
    status(&target.post("jobs", &good()).await?, 200)?;
    let page = target.get("metrics").await?;
    status(&page, 200)?;
    let kind = header(&page, "content-type").to_owned();
    expect(kind.starts_with("text/plain"), "`text/plain`", kind)?;
    let page = page.text().await?;
    for name in ["jobs_done_total ", "jobs_in_flight "] {
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok());
        expect(value.is_some(), format!("a line `{name}N`"), &page)?;
    }
    Ok(())
}

async fn who_says_which_rights_and_limits_the_process_has(target: &Target) -> Outcome {
    let who = json_of(target.get("who").await?, 200).await?;
    for field in ["user", "pid", "workers"] {
        let number = integer(&who, field)?;
        expect(number >= i64::from(field != "user"), format!("a number in `{field}`"), number)?;
    }
    list(&who, "capabilities")?;
    for field in ["read_only", "may_gain_privileges"] {
        expect(who[field].is_boolean(), format!("`{field}` to be true or false"), &who)?;
    }
    for field in ["memory_limit", "cpu_limit"] {
        let there = who.get(field).is_some_and(|limit| limit.is_null() || limit.is_number());
        expect(there, format!("`{field}`, a number or null"), &who)?;
    }
    Ok(())
}

async fn memory_is_taken_and_given_back(target: &Target) -> Outcome {
    for _ in 0..3 {
        let eaten =
            json_of(target.ask(Method::POST, "eat?mib=1&milliseconds=10").await?, 200).await?;
        equal("the field `mib`", integer(&eaten, "mib")?, 1)?;
    }
    for query in ["", "?mib=", "?mib=0", "?mib=-1", "?mib=1.5", "?mib=1025", "?mib=99999999999999"]
    {
        invalid(target.ask(Method::POST, &format!("eat{query}")).await?, "mib").await?;
    }
    let late = target.ask(Method::POST, "eat?mib=1&milliseconds=10001").await?;
    invalid(late, "milliseconds").await
}

async fn orphans_can_be_left_behind(target: &Target) -> Outcome {
    let forked = target.ask(Method::POST, "fork?children=3").await?;
    if forked.status() != 501 {
        let forked = json_of(forked, 200).await?;
        equal("the field `children`", integer(&forked, "children")?, 3)?;
    }
    for query in ["", "?children=0", "?children=1001", "?children=;reboot"] {
        invalid(target.ask(Method::POST, &format!("fork{query}")).await?, "children").await?;
    }
    Ok(())
}

async fn what_is_not_there_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["nowhere", "jobs/1", "%ff", "..%2fetc%2fpasswd", "healthz/x"]).await
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let calls = [
        (Method::POST, ""),
        (Method::GET, "jobs"),
        (Method::GET, "eat"),
        (Method::DELETE, "fork"),
        (Method::PUT, "readyz"),
        (Method::POST, "who"),
    ];
    not_allowed(target, &calls).await
}
