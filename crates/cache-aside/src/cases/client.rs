//! How do cases, tests and experiments speak to the service? As a client of its table of calls.

use std::time::Duration;

use anyhow::Context;
use conform::{
    expect::{integer, json_of, text},
    http::header,
    target::{Target, eventually},
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// Longer than any answer may take. A request that hangs must be seen to hang, and not be cut short here.
const LONGEST: Duration = Duration::from_secs(90);

/// A client of one running service.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
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

    /// An address that no other run takes.
    pub fn email(&self, name: &str) -> String {
        format!("{}-{}@example.org", name.to_lowercase().replace(' ', "-"), self.target.tag())
    }

    /// A user of this name, with an address that no other run takes.
    pub fn user(&self, name: &str) -> Value {
        json!({ "name": name, "email": self.email(name) })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.target.request(method, path).timeout(LONGEST)
    }

    /// Asks once to make a user.
    pub async fn create_once(&self, user: &Value) -> anyhow::Result<Response> {
        self.target.send(self.request(Method::POST, "users").json(user)).await
    }

    /// Makes a user, and asks again while the service is too busy.
    pub async fn create(&self, user: &Value) -> anyhow::Result<Response> {
        let request = || self.request(Method::POST, "users").json(user);
        Ok(self.target.send_patiently(request).await?.0)
    }

    /// Makes a user of this name, who must not be refused, and returns the id.
    pub async fn sign_up(&self, name: &str) -> anyhow::Result<i64> {
        integer(&json_of(self.create(&self.user(name)).await?, 201).await?, "id")
    }

    /// Reads a user.
    pub async fn read(&self, id: i64) -> anyhow::Result<Response> {
        self.target.send(self.request(Method::GET, &format!("users/{id}"))).await
    }

    /// Reads a user, and asks again while the service is too busy.
    pub async fn read_patiently(&self, id: i64) -> anyhow::Result<Response> {
        let request = || self.request(Method::GET, &format!("users/{id}"));
        Ok(self.target.send_patiently(request).await?.0)
    }

    /// Reads a user until the answer comes from the cache: the user may not be there yet, and what is cached may
    /// have gone.
    pub async fn hit(&self, id: i64) -> anyhow::Result<Response> {
        eventually("a second read is a hit, as Cache-Status says", async || {
            let response = self.read(id).await?;
            Ok(is_hit(&response).then_some(response))
        })
        .await
    }

    /// Reads several users at once.
    pub async fn read_many(&self, ids: &[i64]) -> anyhow::Result<Response> {
        let ids: Vec<_> = ids.iter().map(i64::to_string).collect();
        self.target.send(self.request(Method::GET, &format!("users?ids={}", ids.join(",")))).await
    }

    /// Changes a user, whatever its version is.
    pub async fn change(&self, id: i64, user: &Value) -> anyhow::Result<Response> {
        self.change_if(id, user, Some("*")).await
    }

    /// Changes a user, if it is one of these versions.
    pub async fn change_if(
        &self,
        id: i64,
        user: &Value,
        if_match: Option<&str>,
    ) -> anyhow::Result<Response> {
        let mut request = self.request(Method::PUT, &format!("users/{id}")).json(user);
        if let Some(tags) = if_match {
            request = request.header("if-match", tags);
        }
        self.target.send(request).await
    }

    /// Deletes a user.
    pub async fn delete(&self, id: i64) -> anyhow::Result<Response> {
        self.target.send(self.request(Method::DELETE, &format!("users/{id}"))).await
    }

    /// Asks whether the service is ready.
    pub async fn readiness(&self) -> anyhow::Result<Response> {
        self.target.get("readyz").await
    }
}

/// What one parameter of `Cache-Status` says of the cache nearest to the server.
pub fn cache_status<'a>(response: &'a Response, parameter: &str) -> Option<&'a str> {
    let nearest = header(response, "cache-status").split(',').next().unwrap_or_default();
    nearest.split(';').skip(1).find_map(|it| it.trim().strip_prefix(parameter))
}

/// Whether the answer came from the cache.
pub fn is_hit(response: &Response) -> bool {
    cache_status(response, "hit") == Some("")
}

/// The seconds that a hit has left.
pub fn ttl(response: &Response) -> anyhow::Result<i64> {
    let ttl = cache_status(response, "ttl=").and_then(|ttl| ttl.parse().ok());
    ttl.with_context(|| {
        let seen = header(response, "cache-status");
        format!("expected a whole number `ttl` beside `hit` in Cache-Status, got {seen:?}")
    })
}

/// The name of the user that was read.
pub async fn name(response: Response) -> anyhow::Result<String> {
    Ok(text(&json_of(response, 200).await?, "name")?.to_owned())
}
