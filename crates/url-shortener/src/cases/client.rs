//! How do cases, tests and experiments speak to a shortener? As a client of its table of calls.

use conform::{
    case::Outcome,
    expect::{integer, json, status_in, text},
    http::header,
    target::{Target, eventually},
};
use reqwest::{Method, RequestBuilder, Response, header::AUTHORIZATION};
use serde_json::{Value, json};

/// A client of one shortener. It does not follow redirects, because it has to see them.
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

    /// A page that no other run shortens.
    pub fn page(&self, path: &str) -> String {
        format!("https://example.com/{}/{path}", self.target.tag())
    }

    /// An alias that no other run takes.
    pub fn alias(&self, name: &str) -> String {
        format!("{name}-{}", self.target.tag())
    }

    /// Asks for a link, once.
    pub async fn create_once(&self, link: &Value) -> anyhow::Result<Response> {
        self.target.post("links", link).await
    }

    /// Asks for a link, and asks again while the service is too busy.
    pub async fn create(&self, link: &Value) -> anyhow::Result<Response> {
        Ok(self.target.post_patiently("links", link).await?.0)
    }

    /// Gets a link that the service must not refuse, and returns its code.
    pub async fn code_for(&self, link: &Value) -> anyhow::Result<String> {
        let response = self.create(link).await?;
        status_in(&response, &[201, 200])?;
        Ok(text(&json(response).await?, "code")?.to_owned())
    }

    /// Gets a plain link, and returns its code.
    pub async fn shorten(&self, url: &str) -> anyhow::Result<String> {
        self.code_for(&json!({ "url": url })).await
    }

    /// Follows a code.
    pub async fn follow(&self, code: &str) -> anyhow::Result<Response> {
        self.target.get(code).await
    }

    /// Where a code leads; an empty text if it leads nowhere.
    pub async fn destination(&self, code: &str) -> anyhow::Result<String> {
        let follow = || self.target.request(Method::GET, code);
        let (response, _) = self.target.send_patiently(follow).await?;
        Ok(header(&response, "location").to_owned())
    }

    /// Asks where a code leads without following it, as a preview does.
    pub async fn preview(&self, code: &str) -> anyhow::Result<Response> {
        self.target.ask(Method::HEAD, code).await
    }

    /// Looks at the link of a code.
    pub async fn look_at(&self, code: &str) -> anyhow::Result<Response> {
        self.target.get(&format!("links/{code}")).await
    }

    /// Gets a link of its own, and returns its code and its edit token.
    pub async fn create_owned(&self, link: &Value) -> anyhow::Result<(String, String)> {
        let response = self.create(link).await?;
        status_in(&response, &[201])?;
        Self::owned(&json(response).await?)
    }

    /// The code and the edit token of a link that was just created.
    pub fn owned(created: &Value) -> anyhow::Result<(String, String)> {
        Ok((text(created, "code")?.to_owned(), text(created, "edit_token")?.to_owned()))
    }

    /// Deletes the link of a code, with this token.
    pub async fn delete(&self, code: &str, token: Option<&str>) -> anyhow::Result<Response> {
        let delete = self.target.request(Method::DELETE, &format!("links/{code}"));
        self.target.send(with(token, delete)).await
    }

    /// Changes the link of a code, with this token.
    pub async fn change(
        &self,
        code: &str,
        token: Option<&str>,
        change: &Value,
    ) -> anyhow::Result<Response> {
        let request = self.target.request(Method::PATCH, &format!("links/{code}")).json(change);
        self.target.send(with(token, request)).await
    }

    /// The clicks on a code that have been written: all, by day and by referrer.
    pub async fn stats(&self, code: &str) -> anyhow::Result<Response> {
        self.target.get(&format!("links/{code}/stats")).await
    }

    /// How many clicks on a code have been written.
    pub async fn clicks(&self, code: &str) -> anyhow::Result<u64> {
        let clicks = integer(&json(self.stats(code).await?).await?, "clicks")?;
        Ok(clicks.try_into()?)
    }

    /// Waits until clicks are written, at least this many, and returns the statistics.
    pub async fn stats_with(&self, code: &str, clicks: u64) -> anyhow::Result<Value> {
        eventually(&format!("the statistics show this many clicks: {clicks}"), async || {
            let stats = self.stats(code).await?;
            status_in(&stats, &[200, 503])?;
            let stats = json(stats).await?;
            Ok((stats["clicks"].as_u64() >= Some(clicks)).then_some(stats))
        })
        .await
    }
}

fn with(token: Option<&str>, request: RequestBuilder) -> RequestBuilder {
    match token {
        // Schemes are compared without regard to case.
        Some(token) => request.header(AUTHORIZATION, format!("bearer {token}")),
        None => request,
    }
}

/// The answer is a redirect, after which a browser asks again the next time.
pub fn redirects(response: &Response) -> Outcome {
    status_in(response, &[302, 303, 307])
}
