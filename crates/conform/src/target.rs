//! What is tried? A program behind a URL, of which nothing else is known. What was sent and what came is noted,
//! so that a failure can be shown.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures_util::future::BoxFuture;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, header::RETRY_AFTER, redirect::Policy,
};
use serde_json::Value;

/// How long a case waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts, where the answer does not say how long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// As much of a body as fits beside the rest of its line.
const SHOWN: usize = 120;

/// Kills the server and starts it again at the same address.
pub type Restart = Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// The program that is tried.
#[derive(Clone)]
pub struct Target {
    url: String,
    tag: String,
    http: Client,
    restart: Option<Restart>,
    last: Arc<Mutex<Exchange>>,
}

/// The last request and its answer, as people read them.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// `POST /links {"url":…}`
    pub sent: String,
    /// `201 {"code":…}`
    pub came: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Target {
    /// The program at this URL, which is `http://host:port` and perhaps a path.
    pub fn new(url: &str, restart: Option<Restart>) -> anyhow::Result<Self> {
        let http = Client::builder().redirect(Policy::none()).timeout(PATIENCE).build()?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            // What an earlier run left must not be taken for this one's.
            tag: format!("{:08x}", rand::random::<u32>()),
            http,
            restart,
            last: Arc::default(),
        })
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Eight letters and digits that no other run uses.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A request, to be sent with [`send`](Self::send).
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/{}", self.url, path.trim_start_matches('/')))
    }

    /// Sends a request; the answer is whole when it is returned.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = request.build()?;
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        let path = request.url().as_str().strip_prefix(&self.url).unwrap_or_default();
        let sent = format!("{} {} {}", request.method(), shown(path.as_bytes()), shown(body));
        *self.last() = Exchange { sent: sent.trim_end().to_owned(), came: "no answer".to_owned() };
        let response = self.http.execute(request).await?;
        let mut whole = http::Response::builder().status(response.status());
        if let Some(headers) = whole.headers_mut() {
            *headers = response.headers().clone();
        }
        let body = response.bytes().await?;
        let whole = whole.body(body)?;
        let came = format!("{} {}", whole.status().as_u16(), shown(whole.body()));
        came.trim_end().clone_into(&mut self.last().came);
        Ok(whole.into())
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.send(self.request(Method::GET, path)).await
    }

    /// A POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// A POST of JSON, sent as [`send_patiently`](Self::send_patiently) sends it.
    pub async fn post_patiently(
        &self,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<(Response, bool)> {
        self.send_patiently(|| self.request(Method::POST, path).json(body)).await
    }

    /// Sends a request, and sends it again while the answer is 503, after as many seconds as `Retry-After` says.
    /// Returns the last answer, and whether there was a 503: nobody knows what a request did that got one.
    pub async fn send_patiently(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> anyhow::Result<(Response, bool)> {
        let deadline = Instant::now() + PATIENCE;
        let mut unsure = false;
        loop {
            let response = self.send(request()).await?;
            if response.status() != StatusCode::SERVICE_UNAVAILABLE || Instant::now() > deadline {
                return Ok((response, unsure));
            }
            unsure = true;
            let seconds = response.headers().get(RETRY_AFTER);
            let seconds = seconds.and_then(|it| it.to_str().ok()?.parse().ok()).unwrap_or(0);
            let pause = Duration::from_secs(seconds).clamp(SHORTEST_PAUSE, PATIENCE);
            tokio::time::sleep(pause).await;
        }
    }

    /// Any request without a body.
    pub async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Response> {
        self.send(self.request(method, path)).await
    }

    /// Kills the server and starts it again; returns when it answers.
    pub async fn restart(&self) -> anyhow::Result<()> {
        let restart = self.restart.as_ref().context("it cannot be restarted")?;
        restart().await?;
        eventually("the server answers again", async || {
            Ok(self.http.get(&self.url).send().await.ok().map(|_| ()))
        })
        .await
    }

    /// Notes what was sent and what came by other means than [`send`](Self::send).
    pub fn note(&self, sent: &str, came: &str) {
        *self.last() = Exchange { sent: shown(sent.as_bytes()), came: shown(came.as_bytes()) };
    }

    /// What was sent and what came last.
    pub fn last_exchange(&self) -> Exchange {
        self.last().clone()
    }

    /// It is only ever replaced, so poison is ignored.
    fn last(&self) -> MutexGuard<'_, Exchange> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning, on one line.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN)]);
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((end, _)) = line.char_indices().nth(SHOWN) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Polls until the condition gives a value. Never sleeps longer than it must, never waits for ever.
pub async fn eventually<T, W>(what: &str, condition: impl FnMut() -> W) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<Option<T>>>,
{
    within(PATIENCE, what, condition).await
}

/// The same, for what may take longer.
pub async fn within<T, W>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> W,
) -> anyhow::Result<T>
where
    W: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("waited {} s in vain: {what}", patience.as_secs())
}
