//! How does a router get its limit, and how does a client learn of it? By a `tower` layer.
//!
//! It tells the client in `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10, structured fields
//! (RFC 9651). What we write is so narrow (names of `a-z`, `0-9` and `-`, whole numbers) that formatting it is right; the
//! cases parse it with a real parser.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header::RETRY_AFTER, request::Parts},
    response::{IntoResponse, Response},
};
use tower::{Layer, Service};

use crate::{
    algorithm::Algorithm,
    client::{Clients, Key},
    error::Error,
    limiter::{Limiter, Store},
    quota::{Decision, InvalidQuota, Limits, Micros, Policy, Quota},
};

/// Clients that a process remembers unless told otherwise: some 10 MB.
pub const MAX_KEYS: usize = 100_000;

type KeyOf = Arc<dyn Fn(&Parts) -> Key + Send + Sync>;
type CostOf = Arc<dyn Fn(&Parts) -> u32 + Send + Sync>;

/// Limits what is below it. Clones, and all services made from it, count together.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::get};
/// use rate_limiter::{algorithm::Algorithm, client::Key, layer::RateLimitLayer, limiter::Store, quota::Quota};
///
/// let quota = Quota::new(100, Duration::from_mins(15))?;
/// let limit = RateLimitLayer::new(Algorithm::Gcra, quota)?
///     .key(|request| match request.headers.get("x-tenant") {
///         Some(tenant) => Key::of("tenant", tenant.as_bytes()),
///         None => Key::of("tenant", b""),
///     })
///     .store(Store::memory(10_000));
/// let router: Router = Router::new().route("/api/hello", get(async || "hello")).layer(limit);
/// # Ok::<_, rate_limiter::quota::InvalidQuota>(())
/// ```
#[derive(Clone)]
pub struct RateLimitLayer {
    limits: Limits,
    store: Store,
    key: KeyOf,
    cost: CostOf,
    /// Made anew whenever one of the above changes; until the first request there is nothing in it.
    limiter: Arc<Limiter>,
    /// `RateLimit-Policy`, which is the same in every answer.
    policy: HeaderValue,
}

impl RateLimitLayer {
    /// By the peer's address, in memory, each request at a cost of one, with a policy of the name `api`.
    pub fn new(algorithm: Algorithm, quota: Quota) -> Result<Self, InvalidQuota> {
        Ok(Self::with_limits(Limits::new(algorithm, vec![Policy::new("api", quota)?])?))
    }

    /// By several policies at once.
    pub fn with_limits(limits: Limits) -> Self {
        let (store, clients) = (Store::memory(MAX_KEYS), Clients::default());
        let policy = rate_limit_policy(limits.policies());
        Self {
            limiter: Arc::new(Limiter::new(limits.clone(), &store)),
            limits,
            store,
            key: Arc::new(move |request| clients.key(request)),
            cost: Arc::new(|_| 1),
            // Names and numbers only: it is one. Without it the answers would just say less.
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// Whose quota a request counts for.
    pub fn key(self, key: impl Fn(&Parts) -> Key + Send + Sync + 'static) -> Self {
        Self { key: Arc::new(key), ..self }
    }

    /// How many units a request costs.
    pub fn cost(self, cost: impl Fn(&Parts) -> u32 + Send + Sync + 'static) -> Self {
        Self { cost: Arc::new(cost), ..self }
    }

    /// Where it is counted.
    pub fn store(self, store: Store) -> Self {
        let limiter = Arc::new(Limiter::new(self.limits.clone(), &store));
        Self { store, limiter, ..self }
    }

    /// Whether a request that is refused costs quota too.
    pub fn count_refused(mut self, count_refused: bool) -> Self {
        self.limits.count_refused = count_refused;
        let store = self.store.clone();
        self.store(store)
    }

    /// Who decides.
    pub fn limiter(&self) -> Arc<Limiter> {
        Arc::clone(&self.limiter)
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit { inner, layer: self.clone() }
    }
}

/// A service with a limit.
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S> Service<Request> for RateLimit<S>
where
    S: Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    // ANCHOR: call
    fn call(&mut self, request: Request) -> Self::Future {
        // Call the service that was asked whether it is ready, and not its clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let (key, cost) = ((layer.key)(&parts), (layer.cost)(&parts));
            let (mut response, decision) = match layer.limiter.decide(key, cost.into()).await {
                Ok(decision) if decision.allowed => {
                    (inner.call(Request::from_parts(parts, body)).await?, decision)
                }
                // The body is not read: a client over its limit must not cost us that.
                Ok(decision) => {
                    (Error::over(layer.limits.policies(), &decision).into_response(), decision)
                }
                Err(error) => return Ok(error.into_response()),
            };
            let policies = layer.limits.policies();
            let headers = response.headers_mut();
            headers.insert(RATE_LIMIT_POLICY, layer.policy);
            if let Ok(value) = HeaderValue::from_str(&rate_limit(policies, &decision)) {
                headers.insert(RATE_LIMIT, value);
            }
            if !decision.allowed {
                // 0 would ask for a retry at once.
                headers.insert(RETRY_AFTER, seconds(decision.wait()).max(1).into());
            }
            Ok(response)
        })
    }
    // ANCHOR_END: call
}

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

// ANCHOR: fields
/// `"api";q=100;w=900`. A window that is not whole seconds cannot be told, and `w` may be left out.
pub fn rate_limit_policy(policies: &[Policy]) -> String {
    let item = |policy: &Policy| {
        let (limit, window) = (policy.quota().limit(), policy.quota().window());
        let w = if window.is_multiple_of(1_000_000) {
            format!(";w={}", window / 1_000_000)
        } else {
            String::new()
        };
        format!("\"{}\";q={limit}{w}", policy.name())
    };
    policies.iter().map(item).collect::<Vec<_>>().join(", ")
}

/// `"api";r=57;t=320`: what is left, and in how many seconds all of it is there again.
pub fn rate_limit(policies: &[Policy], decision: &Decision) -> String {
    let items = policies.iter().zip(decision.outcomes()).map(|(policy, outcome)| {
        format!("\"{}\";r={};t={}", policy.name(), outcome.remaining, seconds(outcome.whole))
    });
    items.collect::<Vec<_>>().join(", ")
}

/// Whole seconds, rounded up: a client that comes back then is not too early.
pub fn seconds(micros: Micros) -> u64 {
    micros.div_ceil(1_000_000)
}
// ANCHOR_END: fields

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Outcome;

    fn policies() -> Vec<Policy> {
        ["api=100/15m", "burst=5/1500ms"].map(|policy| policy.parse().unwrap()).to_vec()
    }

    #[test]
    fn a_policy_tells_its_window_if_that_is_whole_seconds() {
        assert_eq!(rate_limit_policy(&policies()), r#""api";q=100;w=900, "burst";q=5"#);
    }

    #[test]
    fn each_policy_tells_what_is_left_and_when_all_of_it_is_back() {
        let mut decision = Decision::new(true);
        for (remaining, whole) in [(57, 320_000_001), (0, 0)] {
            decision.push(Outcome { remaining, wait: 0, whole });
        }
        let told = rate_limit(&policies(), &decision);
        assert_eq!(told, r#""api";r=57;t=321, "burst";r=0;t=0"#);
    }

    #[test]
    fn seconds_are_rounded_up_so_that_nobody_comes_back_too_early() {
        for (micros, whole) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(seconds(micros), whole, "{micros} µs");
        }
    }
}
