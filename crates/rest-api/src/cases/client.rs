//! How do cases, tests and experiments speak to the service? As a client of its table of calls.

use std::hash::{BuildHasher, RandomState};

use anyhow::Context;
use conform::{
    expect::{json_of, text},
    http::header,
    target::Target,
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// RFC 7396.
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// RFC 6902.
pub const JSON_PATCH: &str = "application/json-patch+json";

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Client {
    /// The service.
    pub target: Target,
}

/// A user as it was when it was read: its path and the ETag of that moment.
#[derive(Clone, Debug)]
pub struct Known {
    /// `/users/…`
    pub path: String,
    /// The ETag; empty if there was none.
    pub tag: String,
    /// The user.
    pub body: Value,
}

impl Client {
    /// Speaks to this program.
    pub fn of(target: &Target) -> Self {
        Self { target: target.clone() }
    }

    /// Speaks to the program at this URL.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self { target: Target::new(url, None)? })
    }

    /// An address that no other request takes.
    pub fn email(&self) -> String {
        format!("{}@example.org", new_name())
    }

    /// A user of this name, with an address that no other request takes.
    pub fn user(&self, name: &str) -> Value {
        json!({ "name": name, "email": self.email() })
    }

    /// A request without a body.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.target.request(method, path)
    }

    /// Sends it, and again while the service is too busy.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let again = || request.try_clone().unwrap_or_else(|| self.request(Method::GET, "healthz"));
        Ok(self.target.send_patiently(again).await?.0)
    }

    /// A GET with these headers.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let request = self.request(Method::GET, path);
        self.send(headers.iter().fold(request, |it, (name, value)| it.header(*name, *value))).await
    }

    /// Creates a user, under a key if there is one.
    pub async fn create(&self, user: &Value, key: Option<&str>) -> anyhow::Result<Response> {
        let mut request = self.request(Method::POST, "users").json(user);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        self.send(request).await
    }

    /// Creates a user of this name, who must not be refused.
    pub async fn sign_up(&self, name: &str) -> anyhow::Result<Known> {
        known(self.create(&self.user(name), None).await?, 201).await
    }

    /// Reads a user, who must be there.
    pub async fn read(&self, path: &str) -> anyhow::Result<Known> {
        let mut known = known(self.get(path, &[]).await?, 200).await?;
        path.clone_into(&mut known.path);
        Ok(known)
    }

    /// Replaces a user, under these conditions.
    pub async fn put(
        &self,
        path: &str,
        user: &Value,
        conditions: &[(&str, &str)],
    ) -> anyhow::Result<Response> {
        let request = self.request(Method::PUT, path).json(user);
        self.send(conditions.iter().fold(request, |it, (name, value)| it.header(*name, *value)))
            .await
    }

    /// Changes a part of a user, if it is still this version.
    pub async fn patch(
        &self,
        path: &str,
        (media_type, patch): (&str, impl Into<String>),
        if_match: Option<&str>,
    ) -> anyhow::Result<Response> {
        let request = self.request(Method::PATCH, path).header("content-type", media_type);
        let mut request = request.body(patch.into());
        if let Some(tags) = if_match {
            request = request.header("if-match", tags);
        }
        self.send(request).await
    }

    /// Deletes a user.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Response> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Orders something for a user; the order's path and its body.
    pub async fn order(&self, user: &str, item: &str) -> anyhow::Result<Known> {
        let order = json!({ "item": item, "quantity": 1 });
        let request = self.request(Method::POST, &format!("{user}/orders")).json(&order);
        known(self.send(request).await?, 201).await
    }

    /// A POST without a body: a move of an order.
    pub async fn go(&self, path: &str) -> anyhow::Result<Response> {
        self.send(self.request(Method::POST, path)).await
    }
}

/// What an answer of this status says of one resource. A program that sends no `Location` is asked for the `id`.
pub async fn known(response: Response, status: u16) -> anyhow::Result<Known> {
    let (location, tag) =
        (header(&response, "location").to_owned(), header(&response, "etag").to_owned());
    let path = response.url().path().trim_end_matches('/').to_owned();
    let body = json_of(response, status).await?;
    let path = if !location.is_empty() {
        // It may be a whole URL.
        let path = location.split("://").last().unwrap_or_default();
        path[path.find('/').context("expected a path in `Location`, got none")?..].to_owned()
    } else if status == 201 {
        let collection = if path.contains("orders") { "/orders" } else { "/users" };
        format!("{collection}/{}", text(&body, "id")?)
    } else {
        path
    };
    Ok(Known { path, tag, body })
}

/// A JSON Patch of 63 KB that makes a document 48,000 deep: each value goes to the innermost place of the one before it,
/// and what has come of it is copied there too.
pub fn deep_patch() -> String {
    let value = format!("{}1{}", r#"{"":"#.repeat(124), "}".repeat(124));
    let (mut steps, mut depth) = (Vec::new(), 0);
    for _ in 0..12 {
        let path = format!("/name{}", "/".repeat(depth));
        steps.push(format!(r#"{{"op":"add","path":"{path}","value":{value}}}"#));
        depth += 124;
    }
    for _ in 0..5 {
        let path = format!("/name{}", "/".repeat(depth));
        steps.push(format!(r#"{{"op":"copy","from":"/name","path":"{path}"}}"#));
        depth *= 2;
    }
    format!("[{}]", steps.join(","))
}

/// A name that no other request has.
pub fn new_name() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}
