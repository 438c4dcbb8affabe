//! What may be sent to the limited API by mistake or on purpose, and what comes?

use anyhow::{Context, ensure};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::newcomer;
use conform::{
    case::Outcome,
    cases,
    http::{header, invalid, problem, refuses_bad_bodies},
    target::Target,
};

cases! {
    Plain a_body_that_is_no_greeting_is_refused: "400, 413, 415 or 422, and the next good one is served", "One bad client must not cost the others anything.";
    Plain a_name_that_is_none_is_invalid: "422 that names the name, unless it has 1 to 200 bytes", "A form wants to show what is wrong.";
    Plain an_unknown_path_or_method_is_a_problem: "404, and 405 with Allow", "It tells a client's author what the path is for.";
}

/// Sends a greeting as a client of its own.
async fn greet(target: &Target, greeting: &Value) -> anyhow::Result<Response> {
    target.send(newcomer(target).request(Method::POST, "api/hello").json(greeting)).await
}

async fn a_body_that_is_no_greeting_is_refused(target: &Target) -> Outcome {
    let client = newcomer(target);
    let good = json!({ "name": "Ada" });
    refuses_bad_bodies(|| client.request(Method::POST, "api/hello"), &good).await?;
    for body in [r#"{"name": null}"#, r#"{"name": 7}"#, r#"{"name": "Ada", "nmae": 1}"#] {
        let request = client.request(Method::POST, "api/hello");
        let request = request.header("content-type", "application/json").body(body);
        problem(target.send(request).await?, 422).await.context(body)?;
    }
    let greeted: Value = greet(target, &good).await?.json().await?;
    ensure!(greeted == json!({ "hello": "Ada" }), "{greeted}");
    Ok(())
}

async fn a_name_that_is_none_is_invalid(target: &Target) -> Outcome {
    for name in ["", "  ", &"a".repeat(201)] {
        let response = greet(target, &json!({ "name": name })).await?;
        invalid(response, "name").await.with_context(|| format!("{name:?}"))?;
    }
    let name = "é".repeat(100);
    let greeted: Value = greet(target, &json!({ "name": name })).await?.json().await?;
    ensure!(greeted == json!({ "hello": name }), "{greeted}");
    Ok(())
}

async fn an_unknown_path_or_method_is_a_problem(target: &Target) -> Outcome {
    let client = newcomer(target);
    for path in [
        "",
        "api",
        "api/",
        "nowhere",
        "api/hello/",
        "api/hello/x",
        "API/hello",
        "%ff%fe",
        "api/%00",
    ] {
        problem(client.get(path).await?, 404).await.context(path)?;
    }
    for (method, path) in [
        (Method::PUT, "api/hello"),
        (Method::DELETE, "api/hello"),
        (Method::POST, "api/report"),
        (Method::POST, "healthz"),
        (Method::POST, "metrics"),
    ] {
        let response = client.ask(method.clone(), path).await?;
        ensure!(!header(&response, "allow").is_empty(), "{method} {path}: no Allow");
        problem(response, 405).await.with_context(|| format!("{method} {path}"))?;
    }
    Ok(())
}
