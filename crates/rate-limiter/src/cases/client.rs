//! How do cases, tests and experiments speak to a limited API? As one of its clients.

use anyhow::Context;
use conform::target::Target;
use reqwest::{Method, RequestBuilder, Response, header::HeaderValue};

/// One client of a limited API.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    /// What the proxy that it comes through writes into `X-Forwarded-For`.
    forwarded_for: Option<String>,
}

impl Client {
    /// Speaks to this program directly.
    pub fn of(target: &Target) -> Self {
        Self { target: target.clone(), forwarded_for: None }
    }

    /// Speaks to the program at this URL directly.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self::of(&Target::new(url, None)?))
    }

    /// Speaks to the same program through a proxy that writes these addresses into `X-Forwarded-For`.
    pub fn forwarded_for(&self, addresses: impl Into<String>) -> Self {
        Self { target: self.target.clone(), forwarded_for: Some(addresses.into()) }
    }

    /// A request of this client.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.target.request(method, path);
        match &self.forwarded_for {
            Some(addresses) => request.header("x-forwarded-for", addresses),
            None => request,
        }
    }

    /// Any request without a body.
    pub async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        self.target.send(self.request(method, path)).await
    }

    /// Any GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.ask(Method::GET, path).await
    }

    /// A request that costs one unit.
    pub async fn hello(&self) -> anyhow::Result<Response> {
        self.get("api/hello").await
    }

    /// A request that costs one unit, with one more header.
    pub async fn hello_with(
        &self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> anyhow::Result<Response> {
        let value = HeaderValue::from_bytes(value.as_ref())?;
        self.target.send(self.request(Method::GET, "api/hello").header(name, value)).await
    }

    /// A request that costs ten units.
    pub async fn report(&self) -> anyhow::Result<Response> {
        self.get("api/report").await
    }

    /// The value of a metric.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let text = self.get("metrics").await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("{name} is not in {text}"))?.parse()?)
    }
}
