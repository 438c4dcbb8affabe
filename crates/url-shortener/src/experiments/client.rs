//! How do the experiments speak to the service? As a client of its table of calls.

use std::time::Duration;

use anyhow::{Context, ensure};
use lab::{child::Child, patience::patiently};
use reqwest::{Client, Response, StatusCode, header::LOCATION, redirect::Policy};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A client of one running shortener. It does not follow redirects: it came to see them.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    url: String,
}

impl Api {
    /// Speaks to this child.
    pub fn of(child: &Child) -> anyhow::Result<Self> {
        let http = Client::builder()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(256)
            .build()?;
        Ok(Self { http, url: child.url().to_owned() })
    }

    /// Asks for a link and tells what came.
    pub async fn post(&self, link: &Value) -> reqwest::Result<Response> {
        self.http.post(format!("{}/links", self.url)).json(link).send().await
    }

    /// Makes a link that must succeed, and returns its code.
    pub async fn create(&self, link: &Value) -> anyhow::Result<String> {
        let (response, _) = patiently(|| self.post(link)).await?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status.is_success(), "{link} was answered with {status}: {body}");
        let body: Value = serde_json::from_str(&body)?;
        Ok(body["code"].as_str().context("no code in the answer")?.to_owned())
    }

    /// Makes a plain link.
    pub async fn shorten(&self, url: &str) -> anyhow::Result<String> {
        self.create(&json!({ "url": url })).await
    }

    /// Follows a code: the status, and where it leads.
    pub async fn follow(&self, code: &str) -> reqwest::Result<(StatusCode, Option<String>)> {
        let response = self.get(code).await?;
        Ok((response.status(), location(&response)))
    }

    /// Any GET.
    pub async fn get(&self, path: &str) -> reqwest::Result<Response> {
        self.http.get(format!("{}/{path}", self.url)).send().await
    }

    /// The clicks of a link that are written.
    pub async fn clicks(&self, code: &str) -> anyhow::Result<u64> {
        let stats: Value = self.get(&format!("links/{code}/stats")).await?.json().await?;
        stats["clicks"].as_u64().with_context(|| format!("no clicks in {stats}"))
    }

    /// How many of these links, a code and its URL each, do not lead where they should.
    pub async fn lost(&self, links: &[(String, String)]) -> anyhow::Result<u64> {
        let mut workers = JoinSet::new();
        for part in links.chunks(links.len().div_ceil(16).max(1)) {
            let (api, part) = (self.clone(), part.to_vec());
            workers.spawn(async move {
                let mut lost = 0;
                for (code, url) in part {
                    let (response, _) = patiently(|| api.get(&code)).await?;
                    lost += u64::from(location(&response) != Some(url));
                }
                anyhow::Ok(lost)
            });
        }
        let lost = workers.join_all().await.into_iter();
        lost.sum()
    }
}

fn location(response: &Response) -> Option<String> {
    response.headers().get(LOCATION)?.to_str().ok().map(str::to_owned)
}
