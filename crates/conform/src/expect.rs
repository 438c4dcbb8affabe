//! How does a finding read? "expected …, got …", for somebody who knows the table of calls and no Rust.

use std::{
    error::Error,
    fmt::{self, Display},
};

use anyhow::{Context, bail};
use reqwest::Response;
use serde_json::Value;

use crate::{
    case::Outcome,
    target::{Exchange, brief},
};

/// Something is wrong with one answer. It need not be the last that came, so it says which.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub wrong: anyhow::Error,
    /// The request and its answer.
    pub exchange: Exchange,
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.wrong)
    }
}

impl Error for Finding {}

/// What is wrong with this answer. Take it before the body is read, for `map_err`.
pub fn about(response: &Response) -> impl FnOnce(anyhow::Error) -> anyhow::Error + use<> {
    let exchange = response.extensions().get::<Exchange>().cloned();
    |wrong| match exchange {
        Some(exchange) => Finding { wrong, exchange }.into(),
        // No request of a target's.
        None => wrong,
    }
}

/// What was expected, and what came in its place, unless this holds.
pub fn expect(holds: bool, expected: impl Display, got: impl Display) -> Outcome {
    if !holds {
        bail!("expected {expected}, got {}", brief(got.to_string()));
    }
    Ok(())
}

/// The two are the same; `what` is a noun.
pub fn equal(what: &str, got: impl Into<Value>, expected: impl Into<Value>) -> Outcome {
    let (got, expected) = (got.into(), expected.into());
    expect(got == expected, format!("{what} to be {}", brief(expected.to_string())), named(&got))
}

/// The text ends like this. What stands before it is the program's own: a host perhaps, or none.
pub fn ends_with(what: &str, got: &str, end: &str) -> Outcome {
    let what = format!("{what} to end with {end:?}");
    expect(got.ends_with(end), what, named(&Value::from(got)))
}

/// The answer has this status.
pub fn status(response: &Response, expected: u16) -> Outcome {
    status_in(response, &[expected])
}

/// The answer has one of these statuses.
pub fn status_in(response: &Response, expected: &[u16]) -> Outcome {
    let seen = response.status().as_u16();
    let words: Vec<_> = expected.iter().map(u16::to_string).collect();
    expect(expected.contains(&seen), format!("status {}", words.join(" or ")), seen)
        .map_err(about(response))
}

/// The body, which has to be JSON.
pub async fn json(response: Response) -> anyhow::Result<Value> {
    let (seen, about) = (response.status().as_u16(), about(&response));
    let text = response.text().await?;
    let json = serde_json::from_str(&text).ok().with_context(|| {
        format!("expected JSON in the body, got status {seen} and the body {:?}", brief(text))
    });
    json.map_err(about)
}

/// The body of an answer that has to have this status.
pub async fn json_of(response: Response, expected: u16) -> anyhow::Result<Value> {
    status(&response, expected)?;
    json(response).await
}

/// A field that has to be a text.
pub fn text<'a>(object: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    object[field].as_str().with_context(|| lacks(object, "a text", field))
}

/// A field that has to be a whole number.
pub fn integer(object: &Value, field: &str) -> anyhow::Result<i64> {
    object[field].as_i64().with_context(|| lacks(object, "a whole number", field))
}

/// A field that has to be a list.
pub fn list<'a>(object: &'a Value, field: &str) -> anyhow::Result<&'a Vec<Value>> {
    object[field].as_array().with_context(|| lacks(object, "a list", field))
}

/// What is missing is null, or an empty header.
fn named(value: &Value) -> String {
    if value.is_null() || *value == "" { "none".to_owned() } else { value.to_string() }
}

fn lacks(object: &Value, kind: &str, field: &str) -> String {
    format!("expected {kind} in the field `{field}`, got {}", brief(object.to_string()))
}

/// These fields of an object are those of the other.
pub fn same_fields(got: &Value, expected: &Value, fields: &[&str]) -> Outcome {
    for field in fields {
        equal(&format!("the field `{field}`"), got[*field].clone(), expected[*field].clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_the_beginning_of_what_is_long() {
        let finding = equal("it", "x".repeat(1_000), "y".repeat(1_000)).unwrap_err().to_string();
        assert!(finding.contains("\"xxx") && finding.contains("\"yyy"), "{finding}");
        assert!(finding.chars().count() < 300, "{finding}");
    }
}
