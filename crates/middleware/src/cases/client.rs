//! The calls as a client sends them.

use conform::{
    expect::{json_of, text},
    http::header,
    target::Target,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// The key that every program knows.
pub const ADA: &str = "Bearer let-ada-in";

/// A client that shows its key.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it asks.
    pub target: Target,
}

impl Client {
    /// Of this program.
    pub fn of(target: &Target) -> Self {
        Self { target: target.clone() }
    }

    /// A request with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.target.request(method, path).header("authorization", ADA)
    }

    /// A GET with the key.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.target.send(self.request(Method::GET, path)).await
    }

    /// Keeps a note.
    pub async fn create(&self, text: &str) -> anyhow::Result<Response> {
        let request = self.request(Method::POST, "notes").json(&json!({ "text": text }));
        self.target.send(request).await
    }

    /// Keeps a note; it, and its path.
    pub async fn note(&self, words: &str) -> anyhow::Result<(Value, String)> {
        let note = json_of(self.create(words).await?, 201).await?;
        let path = format!("/notes/{}", text(&note, "id")?);
        Ok((note, path))
    }

    /// Deletes a note.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Response> {
        self.target.send(self.request(Method::DELETE, path)).await
    }
}

/// The id that an answer names.
pub fn id(response: &Response) -> String {
    header(response, "x-request-id").to_owned()
}
