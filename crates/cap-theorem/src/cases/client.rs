//! How do cases, tests and experiments speak to a node? As a client of its table of calls.

use conform::{
    expect::{json_of, list, status_in, text},
    target::Target,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// A client of one node.
#[derive(Clone, Debug)]
pub struct Client {
    /// The node.
    pub target: Target,
}

impl Client {
    /// Speaks to this program.
    pub fn of(target: &Target) -> Self {
        Self { target: target.clone() }
    }

    /// Speaks to the node at this URL.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self { target: Target::new(url, None)? })
    }

    /// A key that no other run uses.
    pub fn key(&self, name: &str) -> String {
        format!("{name}-{}", self.target.tag())
    }

    /// A request for this key.
    pub fn request(&self, method: Method, key: &str, query: &str) -> RequestBuilder {
        self.target.request(method, &path(key, query))
    }

    /// A write with any body.
    pub async fn put(&self, key: &str, query: &str, body: &Value) -> anyhow::Result<Response> {
        self.target.send(self.request(Method::PUT, key, query).json(body)).await
    }

    /// A change to a counter or a set, which has to succeed.
    pub async fn change(&self, key: &str, query: &str, body: &Value) -> anyhow::Result<Value> {
        let response = self.target.send(self.request(Method::POST, key, query).json(body)).await?;
        json_of(response, 200).await
    }

    /// A read.
    pub async fn get(&self, key: &str, query: &str) -> anyhow::Result<Response> {
        self.target.get(&path(key, query)).await
    }

    /// A write that has to succeed. Returns the answer.
    pub async fn write(
        &self,
        key: &str,
        query: &str,
        value: &str,
        context: Option<&str>,
    ) -> anyhow::Result<Value> {
        let body = match context {
            Some(context) => json!({ "value": value, "context": context }),
            None => json!({ "value": value }),
        };
        json_of(self.put(key, query, &body).await?, 200).await
    }

    /// The values of a read, in the order of the alphabet, and the context; nothing if the key has no value. A read is asked
    /// again while the answer is 503.
    pub async fn read(&self, key: &str, query: &str) -> anyhow::Result<(Vec<String>, String)> {
        let request = || self.request(Method::GET, key, query);
        let (response, _) = self.target.send_patiently(request).await?;
        status_in(&response, &[200, 404])?;
        if response.status() == 404 {
            return Ok(Default::default());
        }
        let body = json_of(response, 200).await?;
        let values = list(&body, "values")?.iter();
        let mut values: Vec<_> = values.map(|it| it.as_str().unwrap_or("?").to_owned()).collect();
        values.sort_unstable();
        Ok((values, text(&body, "context").unwrap_or_default().to_owned()))
    }
}

/// The path of a key, with every byte escaped that could mean something.
fn path(key: &str, query: &str) -> String {
    let escaped = key.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    format!("keys/{}?{query}", escaped.collect::<String>()).trim_end_matches('?').to_owned()
}
