//! What is tried? A program behind a URL, of which nothing else is known. What is sent and what comes is noted, so that
//! a failure can be shown.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, try_join_all},
    stream,
};
use reqwest::{
    Body, Client, Method, Request, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, LOCATION, REFERER, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tokio::{sync::Barrier, time::timeout};

/// How long a case waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long requests that are sent together wait for each other.
const SLOWEST_CROWD: Duration = Duration::from_secs(2);
/// Between two attempts, where the answer does not say how long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// Longer than anybody here waits.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// As much of a body as fits beside the rest of its line.
const SHOWN: usize = 120;

/// Kills the server and starts it again at the same address.
pub type Restart = Arc<dyn Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync>;

/// The headers of a request that a case is about, when they are there.
const TOLD: [HeaderName; 4] = [
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-forwarded-for"),
    AUTHORIZATION,
    REFERER,
];

/// The program that is tried.
#[derive(Clone)]
pub struct Target {
    url: String,
    tag: String,
    http: Client,
    restart: Option<Restart>,
    last: Arc<Mutex<Exchange>>,
}

/// A request and its answer, as people read them. Each answer carries its own, as an extension of the response.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// `POST /links {"url":…}`
    pub sent: String,
    /// `201 {"code":…}`
    pub came: String,
}

impl Exchange {
    /// This request, and this answer, which is cut where it is long.
    pub fn new(sent: &str, came: &str) -> Self {
        Self { sent: sent.to_owned(), came: shown(came.as_bytes()) }
    }
}

/// A request got no answer, and why.
#[derive(Debug)]
pub struct NoAnswer {
    why: &'static str,
    /// The connection was closed: perhaps before the request was sent whole.
    pub closed: bool,
}

impl NoAnswer {
    fn because(error: &reqwest::Error) -> Self {
        let why = if error.is_connect() {
            "nothing accepts connections there any more"
        } else if error.is_timeout() {
            "none came in time"
        } else {
            "the connection was closed before a whole answer came"
        };
        Self { why, closed: !error.is_connect() && !error.is_timeout() }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected an answer, got none: {}", self.why)
    }
}

impl Error for NoAnswer {}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Target {
    /// The program at this URL, which is `http://host:port` and perhaps a path.
    pub fn new(url: &str, restart: Option<Restart>) -> anyhow::Result<Self> {
        let parsed = Url::parse(url).ok().filter(Url::has_host);
        ensure!(
            parsed.as_ref().is_none_or(|url| url.scheme() != "https"),
            "{url} is HTTPS, and only HTTP is spoken here: name the address of the program itself"
        );
        ensure!(
            parsed.is_some_and(|url| url.scheme() == "http"),
            "the target {url} does not begin with http://: write http://{}",
            url.split("://").last().unwrap_or(url)
        );
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

    /// Sends a request; the answer is whole when it is returned. What is sent is noted before, so that it can be shown
    /// if no answer comes.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        self.send_with(None, request).await
    }

    /// Sends a request whose last byte waits for all others of its crowd.
    async fn send_with(
        &self,
        crowd: Option<Arc<Barrier>>,
        request: RequestBuilder,
    ) -> anyhow::Result<Response> {
        let mut request = request.build()?;
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        let path = request.url().as_str().strip_prefix(&self.url).unwrap_or_default();
        let mut sent = format!("{} {} {}", request.method(), shown(path.as_bytes()), shown(body));
        for (name, value) in request.headers().iter().filter(|(name, _)| TOLD.contains(name)) {
            sent = format!("{} with {name}: {}", sent.trim_end(), shown(value.as_bytes()));
        }
        self.note(sent.trim_end(), "nothing yet");
        if let Some(crowd) = crowd {
            hold_back(&mut request, crowd);
        }
        let answer = async {
            let response = self.http.execute(request).await?;
            let mut whole = http::Response::builder().status(response.status());
            if let Some(headers) = whole.headers_mut() {
                *headers = response.headers().clone();
            }
            Ok(whole.body(response.bytes().await?))
        };
        let answer = answer.await.map_err(|error| {
            let none = NoAnswer::because(&error);
            self.note(sent.trim_end(), &format!("no answer: {}", none.why));
            none
        })??;
        let leads_to = answer.headers().get(LOCATION);
        let leads_to = leads_to.map(|it| format!(" to {}", shown(it.as_bytes())));
        let status = answer.status().as_u16();
        let came = format!("{status}{} {}", leads_to.unwrap_or_default(), shown(answer.body()));
        self.note(sent.trim_end(), came.trim_end());
        let mut answer = Response::from(answer);
        answer.extensions_mut().insert(Exchange::new(sent.trim_end(), came.trim_end()));
        Ok(answer)
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

    /// POSTs of JSON that arrive at the same moment; see [`send_together`](Self::send_together).
    pub async fn post_together(
        &self,
        path: &str,
        bodies: &[Value],
    ) -> anyhow::Result<Vec<(Response, bool)>> {
        let post = |body| self.request(Method::POST, path).json(body);
        self.send_together(bodies.iter().map(post).collect()).await
    }

    /// Requests with bodies that arrive at the same moment, each sent as [`send_patiently`](Self::send_patiently) sends it.
    ///
    /// Of a request that a program has whole, it may be done before the next comes, and then there is no race. So each is
    /// sent but for its last byte, and when all are there, the last bytes follow.
    pub async fn send_together(
        &self,
        requests: Vec<RequestBuilder>,
    ) -> anyhow::Result<Vec<(Response, bool)>> {
        let all_there = Arc::new(Barrier::new(requests.len()));
        try_join_all(requests.into_iter().map(|request| {
            let mut crowd = Some(Arc::clone(&all_there));
            self.patiently(move || {
                let (request, crowd) = (request.try_clone(), crowd.take());
                async { self.send_with(crowd, request.context("a stream is sent once")?).await }
            })
        }))
        .await
    }

    /// Sends a request, and sends it again while the answer is 503, after as many seconds as `Retry-After` says.
    /// Returns the last answer, and whether there was a 503: nobody knows what a request did that got one.
    pub async fn send_patiently(
        &self,
        mut request: impl FnMut() -> RequestBuilder,
    ) -> anyhow::Result<(Response, bool)> {
        self.patiently(|| self.send(request())).await
    }

    async fn patiently<F: Future<Output = anyhow::Result<Response>>>(
        &self,
        mut send: impl FnMut() -> F,
    ) -> anyhow::Result<(Response, bool)> {
        let deadline = Instant::now() + PATIENCE;
        let mut unsure = false;
        loop {
            let response = send().await?;
            let next = Instant::now() + pause(&response);
            // A longer wait than that is as good as no.
            if response.status() != StatusCode::SERVICE_UNAVAILABLE || next > deadline {
                return Ok((response, unsure));
            }
            unsure = true;
            tokio::time::sleep_until(next.into()).await;
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
        eventually("the server answers again", async || Ok(self.answers().await.then_some(())))
            .await
    }

    /// Whether it answers, and not a proxy before it that cannot reach it.
    pub async fn answers(&self) -> bool {
        let answer = self.http.get(format!("{}/healthz", self.url)).send().await;
        answer.is_ok_and(|answer| !matches!(answer.status().as_u16(), 502..=504))
    }

    /// Notes what is sent and what comes. A case begins with nothing.
    pub fn note(&self, sent: &str, came: &str) {
        *self.last() = Exchange::new(sent, came);
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

/// Lets the last byte of its body wait until all of the crowd are there; but not for a program that does not take so many
/// requests at once.
fn hold_back(request: &mut Request, crowd: Arc<Barrier>) {
    let whole = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
    let length = whole.len();
    let (start, end) = whole.split_at(length.saturating_sub(1));
    let (start, end) = (start.to_vec(), end.to_vec());
    let end = timeout(SLOWEST_CROWD, async move { crowd.wait().await }).map(|_| end);
    let parts = stream::iter([start]).chain(stream::once(end));
    *request.body_mut() = Some(Body::wrap_stream(parts.map(Ok::<_, Infallible>)));
    request.headers_mut().insert(CONTENT_LENGTH, length.into());
}

/// How long an answer asks to wait before the next request: seconds, or until a time.
pub fn pause(response: &Response) -> Duration {
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let until = |text| {
        let until = OffsetDateTime::parse(text, &Rfc2822).ok()? - OffsetDateTime::now_utc();
        until.try_into().ok()
    };
    let asked =
        asked.and_then(|text| text.parse().map(Duration::from_secs).ok().or_else(|| until(text)));
    asked.unwrap_or_default().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// The beginning, on one line.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN)]);
    brief(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

/// A long text, cut.
pub fn brief(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
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
    bail!("expected this within {} s, and it did not happen: {what}", patience.as_secs())
}
