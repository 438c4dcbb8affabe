//! How is another service asked, so that its trouble stays its own?
//!
//! No call takes longer than its caller has left. A call is repeated only if a budget allows it, and only by the service
//! next to the failure. A service that keeps failing is left alone for a moment. Whatever it says is checked.
//!
//! Invariant: every call that is repeated is safe to repeat. Reads are, and orders and payments have keys.

use std::{
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, header::CONTENT_TYPE};
use edge::trace::TRACEPARENT;
use rand::random_range;
use reqwest::{Client, Response};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};

use crate::call::{Call, TIMEOUT};
use crate::error::{Error, Fault, RETRIED, Result};

/// Each answer of a service says which contract it keeps.
pub const CONTRACT: HeaderName = HeaderName::from_static("x-contract");
/// The one that we keep and know.
pub const VERSION: &str = "1";
/// Many times the longest answer.
const MAX_BODY: usize = 256 * 1_024;
/// How often one call may be sent.
const ATTEMPTS: u32 = 3;
/// So many failures, one after another, and nobody asks for a while.
const FAILURES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// For a question about the service itself. Less than what a whole request may take.
const LOOK: Duration = Duration::from_secs(1);

/// How others are asked, and what happens when they fail.
#[derive(clap::Args, Clone, Debug)]
pub struct Patience {
    /// The longest that a request may take, in milliseconds, whatever its client says
    #[arg(long, default_value_t = 2_000)]
    pub timeout_ms: u64,
    /// The longest that one call to another service may take
    #[arg(long, default_value_t = 500)]
    pub call_timeout_ms: u64,
    /// The same for a call whose answer the page can do without
    #[arg(long, default_value_t = 200)]
    pub optional_timeout_ms: u64,
    /// When a call is sent again
    #[arg(long, value_enum, default_value = "budget")]
    pub retries: Retries,
    /// Go on asking a service that fails
    #[arg(long)]
    pub no_breaker: bool,
    /// Show no page at all if the recommendations are missing
    #[arg(long)]
    pub no_fallback: bool,
    /// Ask for the parts of a page one after another
    #[arg(long)]
    pub one_by_one: bool,
}

/// When a call is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Retries {
    /// At once, and three times in all, in each service on the way
    Naive,
    /// One retry for ten calls, after a pause, only next to the failure
    Budget,
}

// ANCHOR: budget
/// One retry for ten calls, over all calls to one service; in tenths of a retry.
#[derive(Debug, Default)]
pub struct Budget(AtomicU32);

impl Budget {
    /// Each call adds a tenth, whether or not it goes well. At most ten retries are saved.
    pub fn earn(&self) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |tenths| Some((tenths + 1).min(100)));
    }

    /// Whether a call may be sent again.
    pub fn spend(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |tenths| tenths.checked_sub(10)).is_ok()
    }
}
// ANCHOR_END: budget

// ANCHOR: breaker
/// Whether a service is asked at all.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<Broken>);

#[derive(Debug, Default)]
struct Broken {
    /// One after another.
    failures: u32,
    /// Nobody asks before. Then one call tries, and the others wait for what it finds.
    until: Option<Instant>,
}

impl Breaker {
    /// Whether a call may be made at this moment. The one that tries moves the moment on: if it is dropped before it tells
    /// how it went, the next one tries after another pause.
    pub fn lets_through(&self, now: Instant) -> bool {
        let mut broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.until.is_some_and(|until| now < until) {
            return false;
        }
        broken.until = broken.until.map(|_| now + PAUSE);
        true
    }

    /// How a call went.
    pub fn learn(&self, went_well: bool, now: Instant) {
        let mut broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if went_well {
            *broken = Broken::default();
            return;
        }
        broken.failures += 1;
        if broken.failures >= FAILURES {
            broken.until = Some(now + PAUSE);
        }
    }
}
// ANCHOR_END: breaker

/// Another service, at one address or several.
#[derive(Debug)]
pub struct Peer {
    /// What it is called in errors.
    name: &'static str,
    /// Where it takes questions.
    path: String,
    urls: RwLock<Vec<String>>,
    next: AtomicUsize,
    http: Client,
    longest: Duration,
    retries: Retries,
    breaker: Option<Breaker>,
    budget: Budget,
}

/// Why a call failed, and whether it may be sent again.
type Failed = (Error, bool);

impl Peer {
    /// The service at these addresses, each without a slash at the end.
    pub fn new(
        name: &'static str,
        urls: Vec<String>,
        longest_ms: u64,
        patience: &Patience,
    ) -> reqwest::Result<Self> {
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Ok(Self {
            name,
            path: format!("/internal/{name}"),
            urls: RwLock::new(urls),
            next: AtomicUsize::new(0),
            http: http.build()?,
            longest: Duration::from_millis(longest_ms),
            retries: patience.retries,
            breaker: (!patience.no_breaker).then(Breaker::default),
            budget: Budget::default(),
        })
    }

    /// Where it is.
    pub fn urls(&self) -> Vec<String> {
        self.urls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has moved.
    pub fn move_to(&self, urls: Vec<String>) {
        *self.urls.write().unwrap_or_else(PoisonError::into_inner) = urls;
    }

    /// What it says of itself, if it says anything soon.
    pub async fn look<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let get = self.http.get(self.next_url() + path).timeout(LOOK);
        let answer = get.send().await.and_then(Response::error_for_status).ok()?;
        serde_json::from_slice(&whole(answer, MAX_BODY).await.ok()?).ok()
    }

    // ANCHOR: ask
    /// Asks, and asks again where that may help.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        call: &Call,
        question: &impl Serialize,
    ) -> Result<T> {
        self.budget.earn();
        let mut sent = 1;
        loop {
            let (error, may_help) = match self.once(call, question).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let is_naive = self.retries == Retries::Naive;
            if !may_help || sent == ATTEMPTS || !(is_naive || self.budget.spend()) {
                return Err(error);
            }
            if !is_naive {
                // Full jitter: anywhere up to twice as long each time.
                sleep(Duration::from_millis(random_range(0..20 << sent))).await;
            }
            sent += 1;
        }
    }

    /// Asks once, for as long as the caller has, and never longer than this service may take.
    async fn once<T: DeserializeOwned>(
        &self,
        call: &Call,
        question: &impl Serialize,
    ) -> std::result::Result<T, Failed> {
        let upstream = |fault| Error::Upstream(self.name, fault);
        let left = call.left().map_err(|error| (error, false))?.min(self.longest);
        if self.breaker.as_ref().is_some_and(|it| !it.lets_through(Instant::now())) {
            return Err((upstream(Fault::GivenUp), false));
        }
        let request = self.http.post(self.next_url() + &self.path).json(question);
        let request = request.header(TIMEOUT, left.as_millis().max(1).to_string());
        let request = request.header(TRACEPARENT, call.trace.to_string());
        let exchange = async {
            let answer = request.send().await.map_err(|_| (upstream(Fault::Away), true))?;
            self.understand(answer).await
        };
        let answer = timeout(left, exchange).await.unwrap_or(Err((upstream(Fault::TooSlow), true)));
        if let Some(breaker) = &self.breaker {
            // A refusal is an answer like another. And a caller who had less than half of the time says nothing about the
            // service. (Not less than all of it: on the way here a little is always spent.)
            match &answer {
                Err((Error::Upstream(_, Fault::TooSlow), _)) if left < self.longest / 2 => {}
                answer => {
                    let failed = matches!(answer, Err((Error::Upstream(..), _)));
                    breaker.learn(!failed, Instant::now());
                }
            }
        }
        answer
    }
    // ANCHOR_END: ask

    // ANCHOR: understand
    /// Takes an answer only if it is what the contract says, and not too long.
    async fn understand<T: DeserializeOwned>(
        &self,
        answer: Response,
    ) -> std::result::Result<T, Failed> {
        let is = |name, value: &str| answer.headers().get(name).is_some_and(|it| it == value);
        let garbage = || (Error::Upstream(self.name, Fault::Garbage), false);
        let status = answer.status();
        if status.is_server_error() {
            // Whoever is next to the failure has tried again already.
            let may_help = !is(RETRIED, "1") || self.retries == Retries::Naive;
            return Err((Error::Upstream(self.name, Fault::Failing), may_help));
        }
        if !is(CONTRACT, VERSION) {
            return Err(garbage());
        }
        if !status.is_success() {
            return Err(Error::refused(status.as_u16()).map_or_else(garbage, |it| (it, false)));
        }
        if !says_json(answer.headers()) {
            return Err(garbage());
        }
        // Only a connection that broke may do better the next time.
        let failed = |fault| (Error::Upstream(self.name, fault), fault == Fault::Away);
        let body = whole(answer, MAX_BODY).await.map_err(failed)?;
        serde_json::from_slice(&body).map_err(|_| garbage())
    }
    // ANCHOR_END: understand

    /// One address after another, so that all instances get their share.
    fn next_url(&self) -> String {
        let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner);
        let next = self.next.fetch_add(1, Relaxed);
        urls.get(next % urls.len().max(1)).cloned().unwrap_or_default()
    }
}

/// Whether this is JSON, whatever else its content type says: most frameworks add a charset.
pub fn says_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// A body that is no longer than this. Somebody who sends without an end must not fill our memory.
pub async fn whole(mut answer: Response, most: usize) -> std::result::Result<Vec<u8>, Fault> {
    let mut whole = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|_| Fault::Away)? {
        if whole.len() + part.len() > most {
            return Err(Fault::Garbage);
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_calls_pay_for_one_retry_also_when_none_has_failed() {
        let budget = Budget::default();
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend() && !budget.spend());
        (0..1_000).for_each(|_| budget.earn());
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 10);
    }

    #[test]
    fn a_breaker_opens_after_failures_in_a_row_and_lets_one_try_after_a_pause() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            breaker.learn(false, now);
        }
        breaker.learn(true, now);
        for _ in 1..FAILURES {
            breaker.learn(false, now);
        }
        assert!(breaker.lets_through(now), "a success in between counts");
        breaker.learn(false, now);
        assert!(!breaker.lets_through(now));
        let later = now + PAUSE;
        assert!(breaker.lets_through(later) && !breaker.lets_through(later), "one, and no more");
        breaker.learn(false, later);
        assert!(!breaker.lets_through(later + PAUSE / 2));
        assert!(breaker.lets_through(later + PAUSE));
        breaker.learn(true, later + PAUSE);
        assert!(breaker.lets_through(later + PAUSE) && breaker.lets_through(later + PAUSE));
    }

    #[test]
    fn a_breaker_whose_trial_never_ended_lets_another_one_try() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        (0..FAILURES).for_each(|_| breaker.learn(false, now));
        assert!(breaker.lets_through(now + PAUSE));
        assert!(!breaker.lets_through(now + PAUSE));
        assert!(breaker.lets_through(now + PAUSE * 2));
    }
}
