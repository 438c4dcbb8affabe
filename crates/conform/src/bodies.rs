//! Does a call that takes JSON refuse a body that is not JSON, or is too long? Bad input must harm nobody.

use anyhow::{Context, bail};
use reqwest::{Body, RequestBuilder, Response, header::HeaderValue};
use serde_json::{Value, json};

use crate::{
    case::Outcome,
    expect::{expect, status_in},
    http::{invalid, problem, refused},
    target::{NoAnswer, Target},
};

/// Sends a request that is too large, and expects this problem, or a connection that closes before all of it is sent.
pub async fn refused_unread(target: &Target, request: RequestBuilder, status: u16) -> Outcome {
    match target.send(request.header("connection", "close")).await {
        Ok(response) => problem(response, status).await.map(drop),
        Err(error) => closed(error),
    }
}

/// Accepts an error that says that the connection was closed. Here that is as good as an answer.
fn closed(error: anyhow::Error) -> Outcome {
    match error.downcast_ref::<NoAnswer>() {
        Some(none) if none.closed => Ok(()),
        _ => bail!(error),
    }
}

/// Sends this body as JSON. `request` prepares the request without a body. A service that refuses a body unread closes
/// the connection, so the next request must not use it.
async fn send(
    target: &Target,
    request: &impl Fn() -> RequestBuilder,
    body: impl Into<Body>,
) -> anyhow::Result<Response> {
    let request = request().header("connection", "close");
    target.send(request.header("content-type", "application/json").body(body)).await
}

/// Checks that a call that takes JSON refuses bodies that are not JSON or too long, and afterwards takes a good body.
/// `request` prepares the request without a body; `good` is an object.
pub async fn refuses_bad_bodies(
    target: &Target,
    request: impl Fn() -> RequestBuilder,
    good: &Value,
) -> Outcome {
    let text = good.to_string();
    let fields = good.as_object().context("a good body")?;
    let (key, value) = fields.iter().next().context("a field")?;
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
        refused(send(target, &request, body).await?, &[400, 413, 422]).await?;
    }
    let twice = format!("{{{}:{value},{}", json!(key), &text[1..]);
    let seen = problem(send(target, &request, twice).await?, 400).await;
    seen.with_context(|| format!("the field `{key}` stands twice in the body"))?;
    takes_no_array_for_an_object(target, &request, good).await?;
    names_what_is_wrong(target, &request, good).await?;
    let plain = request().header("content-type", "text/plain").body(text.clone());
    for untold in [plain, request().body(text)] {
        // The server may refuse it without reading it.
        let untold = untold.header("connection", "close");
        let seen = problem(target.send(untold).await?, 415).await;
        seen.context("a body without `Content-Type: application/json`")?;
    }
    let long = format!("{{{}:\"{}\"}}", json!(key), "a".repeat(10_000_000));
    let long = request().header("content-type", "application/json").body(long);
    refused_unread(target, long, 413).await.context("a body of 10 MB")?;
    endless_headers(target, &request).await.context("a header of 1 MB")?;
    let odd = request().header("x-odd", HeaderValue::from_bytes(b"\xff\xfe")?).json(good);
    let response = target.send(odd).await?;
    let taken = response.status().is_success();
    let seen = response.status().as_u16();
    expect(taken, "a good body to be taken after all these, beside a header that is not text", seen)
}

/// Sends a header of a megabyte. Many servers refuse it before the program sees the request, without a problem
/// document.
async fn endless_headers(target: &Target, request: &impl Fn() -> RequestBuilder) -> Outcome {
    let long = request().header("x-long", "a".repeat(1_000_000)).header("connection", "close");
    match target.send(long).await {
        Ok(response) => status_in(&response, &[400, 413, 431]),
        Err(error) => closed(error),
    }
}

/// Sends the same values in an array in place of an object, at the top and further in. Some libraries accept that, by
/// the order of the fields.
async fn takes_no_array_for_an_object(
    target: &Target,
    request: &impl Fn() -> RequestBuilder,
    good: &Value,
) -> Outcome {
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
            let seen = problem(send(target, request, body.to_string()).await?, 400).await;
            seen.context("a list in place of an object")?;
        }
    }
    Ok(())
}

/// Expects that a 422 names a field of a wrong type, and a missing field.
async fn names_what_is_wrong(
    target: &Target,
    request: &impl Fn() -> RequestBuilder,
    good: &Value,
) -> Outcome {
    for (field, value) in good.as_object().into_iter().flatten() {
        // No field is an object with this member.
        let mut wrong = vec![json!({ "websocket": null })];
        if !value.is_boolean() {
            wrong.push(json!(true));
        }
        if !value.is_number() {
            wrong.push(json!(7));
        }
        for wrong in wrong {
            let mut body = good.clone();
            body[field] = wrong;
            let response = send(target, request, body.to_string()).await?;
            let named = match value {
                // The field is an object, as it should be, but something in the object is wrong.
                Value::Object(_) if body[field].is_object() => {
                    problem(response, 422).await.map(drop)
                }
                _ => invalid(response, field).await,
            };
            named.with_context(|| format!("the field `{field}` has another type"))?;
        }
        let mut null = good.clone();
        null[field] = Value::Null;
        let mut missing = good.clone();
        missing.as_object_mut().context("an object")?.remove(field);
        for body in [null, missing] {
            let response = send(target, request, body.to_string()).await?;
            // An optional field may be null or missing.
            if !response.status().is_success() {
                let named = invalid(response, field).await;
                named.with_context(|| format!("the field `{field}` is null or missing"))?;
            }
        }
    }
    Ok(())
}
