//! What does every answer promise over HTTP? Errors are problem documents, and bad input harms nobody.

use anyhow::{Context, ensure};
use reqwest::{Method, RequestBuilder, Response, header::HeaderValue};
use serde_json::{Value, json};

use crate::{case::Outcome, target::Target};

/// A header as text; nothing if it is missing or no text.
pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The response is a problem document of this status; returns it.
pub async fn problem(response: Response, status: u16) -> anyhow::Result<Value> {
    let seen = response.status();
    let kind = header(&response, "content-type").to_owned();
    let text = response.text().await?;
    ensure!(seen == status, "expected {status}, got {seen}: {text}");
    ensure!(kind == "application/problem+json", "{seen} is {kind}: {text}");
    let problem: Value = serde_json::from_str(&text)?;
    ensure!(problem["status"] == status && problem["title"].is_string(), "{text}");
    ensure!(problem["type"].is_string() || problem.get("type").is_none(), "{text}");
    for leak in ["sqlx", "panicked", "select ", "insert ", "src/"] {
        ensure!(!text.contains(leak), "{leak:?} leaks: {text}");
    }
    Ok(problem)
}

/// A 422 that names this field.
pub async fn invalid(response: Response, field: &str) -> Outcome {
    let problem = problem(response, 422).await?;
    let errors = problem["errors"].as_array().with_context(|| problem.to_string())?;
    ensure!(errors.iter().any(|error| error["field"] == field), "{field} is not named: {problem}");
    ensure!(errors.iter().all(|error| error["message"].is_string()), "{problem}");
    Ok(())
}

/// None of these calls is allowed where it is made, and the answer says which are.
pub async fn not_allowed(target: &Target, calls: &[(Method, &str)]) -> Outcome {
    for (method, path) in calls {
        let response = target.ask(method.clone(), path).await?;
        ensure!(!header(&response, "allow").is_empty(), "{method} {path}: no Allow");
        problem(response, 405).await.with_context(|| format!("{method} {path}"))?;
    }
    Ok(())
}

/// There is nothing at any of these paths.
pub async fn not_found(target: &Target, paths: &[&str]) -> Outcome {
    for path in paths {
        problem(target.get(path).await?, 404).await.with_context(|| (*path).to_owned())?;
    }
    Ok(())
}

/// What the balancer asks.
pub async fn lives_and_is_ready(target: &Target) -> Outcome {
    for path in ["healthz", "readyz"] {
        let status = target.get(path).await?.status();
        ensure!(status == 200, "{path}: {status}");
    }
    Ok(())
}

/// A call that takes JSON refuses what is none, and what is too long; then it takes a good body.
/// `request` prepares it without a body, `good` is an object.
pub async fn refuses_bad_bodies(request: impl Fn() -> RequestBuilder, good: &Value) -> Outcome {
    // A service that refuses a body unread closes the connection, and the next request must not be sent on it.
    let send = |body: Vec<u8>| {
        let request = request().header("connection", "close");
        request.header("content-type", "application/json").body(body).send()
    };
    let text = good.to_string();
    let fields = good.as_object().context("a good body")?;
    let (key, value) = fields.iter().next().context("a field")?;
    let twice = format!("{{{}:{value},{}", json!(key), &text[1..]);
    for body in [
        b"".to_vec(),
        b"{".to_vec(),
        b"nonsense".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\"\xff\xfe\"".to_vec(),
        "[".repeat(10_000).into_bytes(),
        format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000)).into_bytes(),
        text.as_bytes()[..text.len() - 1].to_vec(),
    ] {
        let words = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let response = send(body).await.with_context(|| words.clone())?;
        let status = response.status().as_u16();
        ensure!(matches!(status, 400 | 413 | 422), "{words}: {status}");
        problem(response, status).await.context(words)?;
    }
    problem(send(twice.into_bytes()).await?, 400).await.context("a key twice")?;
    takes_no_array_for_an_object(&send, good).await?;
    names_what_is_wrong(&send, good).await?;
    problem(request().header("content-type", "text/plain").body(text.clone()).send().await?, 415)
        .await?;
    problem(request().body(text.clone()).send().await?, 415).await?;
    // The server may close the connection before the client has sent it all.
    match send(format!("{{{}:\"{}\"}}", json!(key), "a".repeat(10_000_000)).into_bytes()).await {
        Ok(response) => {
            problem(response, 413).await?;
        }
        Err(error) => ensure!(error.is_request() || error.is_body(), "{error:?}"),
    }
    match request().header("x-long", "a".repeat(1_000_000)).send().await {
        Ok(response) => ensure!(response.status() == 431, "{}", response.status()),
        Err(error) => ensure!(error.is_request() || error.is_body(), "{error:?}"),
    }
    let odd = HeaderValue::from_bytes(b"\xff\xfe")?;
    let response = request().header("x-odd", odd).json(good).send().await?;
    ensure!(response.status().is_success(), "{}", response.text().await?);
    Ok(())
}

/// The same values in an array are no object, neither at the top nor further in. Some libraries take them for one,
/// by the order of its fields.
async fn takes_no_array_for_an_object<S>(send: impl Fn(Vec<u8>) -> S, good: &Value) -> Outcome
where
    S: Future<Output = reqwest::Result<Response>>,
{
    let values = |object: &Value| -> Value {
        object.as_object().into_iter().flatten().map(|(_, value)| value.clone()).collect()
    };
    let mut arrays = vec![values(good)];
    for (field, value) in good.as_object().into_iter().flatten() {
        let mut inside = good.clone();
        match value {
            Value::Object(_) => inside[field] = values(value),
            Value::Array(items) if items.first().is_some_and(Value::is_object) => {
                inside[field][0] = values(&items[0]);
            }
            _ => continue,
        }
        arrays.push(inside);
    }
    for array in arrays {
        let mut backwards = array.clone();
        if let Some(values) = backwards.as_array_mut() {
            values.reverse();
        }
        for body in [array, backwards] {
            let response = send(body.to_string().into_bytes()).await?;
            problem(response, 400).await.with_context(|| format!("an array: {body}"))?;
        }
    }
    Ok(())
}

/// 422 names the field that has another type, and the one that is missing.
async fn names_what_is_wrong<S>(send: impl Fn(Vec<u8>) -> S, good: &Value) -> Outcome
where
    S: Future<Output = reqwest::Result<Response>>,
{
    for (field, value) in good.as_object().into_iter().flatten() {
        // No field is a truth value, and none is an object with this in it.
        let mut wrong = vec![json!(true), json!({ "websocket": null })];
        if !value.is_number() {
            wrong.push(json!(7));
        }
        for wrong in wrong {
            let mut body = good.clone();
            body[field] = wrong;
            let response = send(body.to_string().into_bytes()).await?;
            let named = match value {
                // The object itself is one, and something in it is not.
                Value::Object(_) if body[field].is_object() => {
                    problem(response, 422).await.map(drop)
                }
                _ => invalid(response, field).await,
            };
            named.with_context(|| format!("a field of another type: {body}"))?;
        }
        let mut null = good.clone();
        null[field] = Value::Null;
        let mut missing = good.clone();
        missing.as_object_mut().context("an object")?.remove(field);
        for body in [null, missing] {
            let response = send(body.to_string().into_bytes()).await?;
            // One that need not be there may be null, or missing.
            if !response.status().is_success() {
                let named = invalid(response, field).await;
                named.with_context(|| format!("without {field}: {body}"))?;
            }
        }
    }
    Ok(())
}
