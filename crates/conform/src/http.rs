//! What does every answer promise over HTTP? `every_call.md` says it in words. Errors are problem documents.

use anyhow::Context;
use reqwest::{Method, Response};
use serde_json::Value;

use crate::{
    case::Outcome,
    expect::{about, equal, expect, integer, json, list, status, status_in, text},
    target::{Target, brief},
};

/// A header as text; nothing if it is missing or no text.
pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The header has this value.
pub fn header_is(response: &Response, name: &str, expected: &str) -> Outcome {
    equal(&format!("the header `{name}`"), header(response, name), expected)
        .map_err(about(response))
}

/// The media type of the body, without its parameters.
pub fn media_type_is(response: &Response, expected: &str) -> Outcome {
    let seen = header(response, "content-type").split(';').next().unwrap_or_default().trim();
    let same = seen.eq_ignore_ascii_case(expected);
    expect(same, format!("the media type {expected}"), format!("`Content-Type: {seen}`"))
        .map_err(about(response))
}

/// The response is a problem document of this status; returns it.
pub async fn problem(response: Response, expected: u16) -> anyhow::Result<Value> {
    let about = about(&response);
    document(response, expected).await.map_err(about)
}

async fn document(response: Response, expected: u16) -> anyhow::Result<Value> {
    status(&response, expected)?;
    media_type_is(&response, "application/problem+json")?;
    let problem = json(response).await?;
    text(&problem, "title")?;
    equal("the field `status` of the problem", integer(&problem, "status")?, expected)?;
    let kind = problem.get("type").unwrap_or(&Value::Null);
    expect(kind.is_string() || kind.is_null(), "a text in the field `type`, or none", kind)?;
    let whole = problem.to_string().to_lowercase();
    let leak = ["panicked at", "traceback (most", "sqlstate", "insert into ", "src/", "sqlx"];
    let leak = leak.into_iter().find(|leak| whole.contains(leak));
    expect(leak.is_none(), "a problem without stack traces and SQL", &problem)?;
    Ok(problem)
}

/// A 422 that names this field.
pub async fn invalid(response: Response, field: &str) -> Outcome {
    let problem = problem(response, 422).await?;
    let errors = list(&problem, "errors")?;
    let named = errors.iter().find(|error| error["field"] == field);
    let named = named.with_context(|| {
        let seen = brief(problem["errors"].to_string());
        format!("expected an entry with `\"field\": \"{field}\"` in `errors`, got {seen}")
    })?;
    text(named, "message").map(drop)
}

/// None of these calls is allowed where it is made, and the answer says which are.
pub async fn not_allowed(target: &Target, calls: &[(Method, &str)]) -> Outcome {
    for (method, path) in calls {
        let response = target.ask(method.clone(), path).await?;
        let allow = header(&response, "allow").to_owned();
        problem(response, 405).await?;
        expect(!allow.is_empty(), "a header `Allow` with the 405", "none")?;
    }
    Ok(())
}

/// There is nothing at any of these paths.
pub async fn not_found(target: &Target, paths: &[&str]) -> Outcome {
    for path in paths {
        problem(target.get(path).await?, 404).await?;
    }
    Ok(())
}

/// What a load balancer asks.
pub async fn lives_and_is_ready(target: &Target) -> Outcome {
    for path in ["healthz", "readyz"] {
        status(&target.get(path).await?, 200)?;
    }
    Ok(())
}

/// The answer is a problem of one of these statuses.
pub async fn refused(response: Response, statuses: &[u16]) -> Outcome {
    status_in(&response, statuses)?;
    let status = response.status().as_u16();
    problem(response, status).await.map(drop)
}

/// Of requests that were sent together, one has the first status and all others have the second. A client that was told to
/// come back may have won without knowing it; then all may have the second.
pub fn one_wins(answers: &[(Response, bool)], won: u16, lost: u16) -> Outcome {
    let count = |status: u16| answers.iter().filter(|(it, _)| it.status() == status).count();
    let (winners, losers, all) = (count(won), count(lost), answers.len());
    let unsure = answers.iter().any(|(_, unsure)| *unsure);
    let one = winners + losers == all && (winners == 1 || winners == 0 && unsure);
    let others = all - winners - losers;
    let got = format!("{winners} times {won}, {losers} times {lost}, {others} others");
    expect(one, format!("one {won} and {} times {lost}", all - 1), got)
}
