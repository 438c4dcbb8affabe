//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use conform::{
    bodies::{refused_unread, refuses_bad_bodies},
    case::Outcome,
    cases,
    expect::{equal, expect, json_of},
    http::{invalid, not_allowed, not_found, problem},
    target::Target,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, found},
    good_plan,
};

cases! {
    Plain a_body_that_is_no_plan_is_refused: "A bad body of POST /diagnosis: 400, 413, 415 or 422; and the next good one is taken", "Every call that takes a body is attacked.";
    Plain a_body_that_is_no_remedy_is_refused: "The same for POST of a remedy", "The same.";
    Plain a_plan_of_another_database_is_refused: "A plan of MySQL, of SQL Server, in text, or without `analyze`: 422 that names plan", "People paste what they have.";
    Plain a_plan_that_is_cut_off_or_too_long_is_refused: "A plan that ends in the middle: 400; one of 10 MB: 413", "A terminal cuts off, and a log file goes on.";
    Plain a_hostile_plan_harms_nobody: "Absurd numbers: 422; a thousand levels: 400; SQL and markup for names: read, and nothing is run", "What was pasted was written by somebody else.";
    Plain a_large_plan_is_read: "A plan of two thousand nodes: 200", "Views upon views make such plans.";
    Plain an_unknown_patient_or_remedy_is_not_found: "A patient or a remedy that there is not: 404", "Paths are input too.";
    Plain an_unknown_parameter_is_refused: "GET plan.svg?x=1: 422 that names remedy; an unknown remedy: 404", "A typing error should not look like an answer.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not: 404", "An everyday event, and no error of the server.";
}

async fn a_body_that_is_no_plan_is_refused(target: &Target) -> Outcome {
    let good = json!({ "plan": good_plan() });
    refuses_bad_bodies(target, || target.request(Method::POST, "diagnosis"), &good).await
}

async fn a_body_that_is_no_remedy_is_refused(target: &Target) -> Outcome {
    let request = || target.request(Method::POST, "patients/by-id/remedies/fewer-columns");
    refuses_bad_bodies(target, request, &json!({ "dry_run": true })).await
}

async fn read(target: &Target, plan: Value) -> anyhow::Result<reqwest::Response> {
    target.post("diagnosis", &json!({ "plan": plan })).await
}

async fn a_plan_of_another_database_is_refused(target: &Target) -> Outcome {
    for (plan, field) in [
        (json!({ "query_block": { "select_id": 1, "table": { "access_type": "ALL" } } }), "plan"),
        (json!("<ShowPlanXML><BatchSequence/></ShowPlanXML>"), "plan"),
        (json!("Seq Scan on events  (cost=0.00..5167.00 rows=12 width=21)"), "plan"),
        (json!([]), "plan"),
        (json!([{ "Plan": { "Node Type": "Seq Scan", "Plan Rows": 7 } }]), "plan"),
        (json!([{ "queryPlanner": {} }]), "plan[0].Plan"),
        (json!([{ "Plan": {} }]), "plan[0].Plan.Node Type"),
    ] {
        let answer = read(target, plan.clone()).await?;
        invalid(answer, field).await.with_context(|| plan.to_string())?;
    }
    Ok(())
}

async fn a_plan_that_is_cut_off_or_too_long_is_refused(target: &Target) -> Outcome {
    let text = json!({ "plan": good_plan() }).to_string();
    let send = |body: String| {
        target
            .request(Method::POST, "diagnosis")
            .header("content-type", "application/json")
            .body(body)
    };
    for cut in [1, 20, text.len() / 2, text.len() - 1] {
        problem(target.send(send(text[..cut].to_owned())).await?, 400).await?;
    }
    let node = good_plan()[0]["Plan"].to_string();
    let many = vec![node; 40_000].join(",");
    let long = format!(r#"{{"plan":[{{"Plan":{{"Node Type":"Append","Plans":[{many}]}}}}]}}"#);
    refused_unread(target, send(long), 413).await
}

async fn a_hostile_plan_harms_nobody(target: &Target) -> Outcome {
    for (field, value) in [
        ("Actual Rows", json!(-1)),
        ("Actual Loops", json!(1e300)),
        ("Plan Rows", json!(-1e300)),
        ("Shared Hit Blocks", json!(1e300)),
    ] {
        let mut plan = good_plan();
        plan[0]["Plan"][field] = value;
        invalid(read(target, plan).await?, "plan").await.with_context(|| field.to_owned())?;
    }
    let (begin, end) = (r#"{"Node Type":"Limit","Plans":["#.repeat(1_000), "]}".repeat(1_000));
    let deep = format!(r#"{{"plan":[{{"Plan":{begin}{end}}}]}}"#);
    let deep = target
        .request(Method::POST, "diagnosis")
        .header("content-type", "application/json")
        .body(deep);
    problem(target.send(deep).await?, 400).await?;
    let mut plan = good_plan();
    let names = "events; drop table users; --<script>alert(1)</script>\n\u{1b}[31m\u{2028}";
    plan[0]["Plan"]["Relation Name"] = json!(format!("{names}{}", "x".repeat(100_000)));
    let answer = json_of(read(target, plan).await?, 200).await?;
    let words = answer["findings"][0]["words"].as_str().unwrap_or_default();
    let printable = !words.contains(['\n', '\u{1b}', '\u{2028}']) && words.len() < 1_000;
    expect(printable, "one short printable line", words)?;
    let first = found(&Client::of(target).diagnose("by-id").await?);
    expect(first.is_empty(), "the table `users` as it was", first.join(", "))
}

async fn a_large_plan_is_read(target: &Target) -> Outcome {
    let mut plan = good_plan();
    let node = plan[0]["Plan"].clone();
    plan[0]["Plan"]["Node Type"] = json!("Append");
    plan[0]["Plan"]["Plans"] = json!(vec![node; 2_000]);
    let answer = json_of(read(target, plan).await?, 200).await?;
    expect(found(&answer).contains(&"full_scan".to_owned()), "full_scan", &answer)
}

async fn an_unknown_patient_or_remedy_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    not_found(
        target,
        &["patients/nobody", "patients/%ff", "patients/by-user%00", "patients/nobody/plan.svg"],
    )
    .await?;
    for path in ["patients/nobody/diagnosis", "patients/%ff/diagnosis"] {
        problem(target.ask(Method::POST, path).await?, 404).await?;
    }
    for (patient, remedy) in
        [("nobody", "index-user"), ("by-user", "nothing"), ("by-user", "%ff"), ("%ff", "x")]
    {
        problem(client.ask(patient, remedy, true).await?, 404).await?;
        problem(client.undo(patient, remedy).await?, 404).await?;
    }
    // It was never in effect.
    problem(client.undo("big-sort", "more-memory").await?, 404).await?;
    equal("in_effect", client.in_effect("big-sort").await?, json!([]))
}

async fn an_unknown_parameter_is_refused(target: &Target) -> Outcome {
    invalid(target.get("patients/by-id/plan.svg?x=1").await?, "remedy").await?;
    not_found(target, &["patients/by-id/plan.svg?remedy=nothing"]).await
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let calls = [
        (Method::POST, "patients"),
        (Method::GET, "patients/by-user/diagnosis"),
        (Method::GET, "patients/by-user/remedies/index-user"),
        (Method::POST, "patients/by-user/plan.svg"),
        (Method::GET, "diagnosis"),
        (Method::POST, "healthz"),
    ];
    not_allowed(target, &calls).await
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(
        target,
        &["nothing", "patients/", "patients/by-user/remedies", "patients/by-user/plan"],
    )
    .await
}
