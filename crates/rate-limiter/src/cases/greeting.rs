//! What may be sent to the limited API by mistake or on purpose, and what comes?

use anyhow::Context;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::newcomer;
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, status_in},
    http::{header, invalid, problem},
    target::Target,
};

cases! {
    Plain a_body_that_is_no_greeting_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_name_that_is_none_is_invalid: "POST /api/hello with a name that is blank or longer than 200 bytes: 422 that names name", "A form wants to show what is wrong.";
    Plain an_unknown_path_or_method_is_a_problem: "A path that does not exist: 404; a method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
}

/// Sends a greeting as a client of its own.
async fn greet(target: &Target, greeting: &Value) -> anyhow::Result<Response> {
    target.send(newcomer(target).request(Method::POST, "api/hello").json(greeting)).await
}

async fn a_body_that_is_no_greeting_is_refused(target: &Target) -> Outcome {
    let client = newcomer(target);
    let good = json!({ "name": "Ada" });
    refuses_bad_bodies(target, || client.request(Method::POST, "api/hello"), &good).await?;
    for body in [r#"{"name": null}"#, r#"{"name": 7}"#, r#"{"name": "Ada", "nmae": 1}"#] {
        let request = client.request(Method::POST, "api/hello");
        let request = request.header("content-type", "application/json").body(body);
        problem(target.send(request).await?, 422).await?;
    }
    let greeted = json_of(greet(target, &good).await?, 200).await?;
    equal("the field `hello`", greeted["hello"].clone(), "Ada")
}

async fn a_name_that_is_none_is_invalid(target: &Target) -> Outcome {
    for name in ["", "  ", &"a".repeat(201)] {
        let response = greet(target, &json!({ "name": name })).await?;
        invalid(response, "name").await.with_context(|| format!("for the name {name:.20?}"))?;
    }
    let name = "é".repeat(100);
    let greeted = json_of(greet(target, &json!({ "name": name })).await?, 200).await?;
    equal("the field `hello`", greeted["hello"].clone(), name)
}

async fn an_unknown_path_or_method_is_a_problem(target: &Target) -> Outcome {
    let client = newcomer(target);
    for path in ["", "api", "nowhere", "api/hello/x"] {
        problem(client.get(path).await?, 404).await?;
    }
    // Some servers refuse such bytes before the program is asked, and know no problem documents.
    for path in ["%ff%fe", "api/%00"] {
        status_in(&client.get(path).await?, &[404, 400])?;
    }
    for (method, path) in [
        (Method::PUT, "api/hello"),
        (Method::DELETE, "api/hello"),
        (Method::POST, "api/report"),
        (Method::POST, "healthz"),
    ] {
        let response = client.ask(method, path).await?;
        let allow = header(&response, "allow").to_owned();
        problem(response, 405).await?;
        expect(!allow.is_empty(), "a header `Allow` with the 405", "none")?;
    }
    Ok(())
}
