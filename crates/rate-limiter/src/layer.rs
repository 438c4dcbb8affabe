//! How does a router get its limit, and how does a client learn of it? By a layer around the handlers.
//!
//! It tells the client in `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10, structured
//! fields (RFC 9651). We write only names of `a-z`, `0-9` and `-` and whole numbers, so plain formatting is enough; the
//! cases parse it with a real parser.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header::RETRY_AFTER, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    client::Key,
    error::Error,
    limiter::Limiter,
    quota::{Decision, Micros, Policy},
};

type Of<T> = Arc<dyn Fn(&Parts) -> T + Send + Sync>;

/// A limit for the routes below it. Its clones count together.
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, middleware::from_fn_with_state, routing::get};
/// use rate_limiter::{
///     algorithm::Algorithm,
///     client::Key,
///     layer::{RateLimit, limit},
///     limiter::{Limiter, Store},
///     memory::{Memory, monotonic},
///     algorithm::Limits,
/// };
///
/// let limits = Limits::new(Algorithm::Gcra, vec!["api=100/15m".parse()?])?;
/// let store = Store::Memory(Memory::new(&limits, 10_000, monotonic()));
/// let by_tenant = RateLimit::new(
///     Limiter::new(limits, store),
///     |request| match request.headers.get("x-tenant") {
///         Some(tenant) => Key::of("tenant", tenant.as_bytes()),
///         None => Key::of("tenant", b""),
///     },
///     |_| 1,
/// );
/// let router: Router = Router::new()
///     .route("/api/hello", get(async || "hello"))
///     .layer(from_fn_with_state(by_tenant, limit));
/// # Ok::<_, rate_limiter::quota::InvalidQuota>(())
/// ```
#[derive(Clone)]
pub struct RateLimit {
    /// Who decides.
    pub limiter: Arc<Limiter>,
    key: Of<Key>,
    cost: Of<u64>,
    /// `RateLimit-Policy`, which is the same in every answer.
    policy: HeaderValue,
}

impl RateLimit {
    /// A limit by this limiter. `key` says whose quota a request counts for, and `cost` how many units it costs.
    pub fn new(
        limiter: Limiter,
        key: impl Fn(&Parts) -> Key + Send + Sync + 'static,
        cost: impl Fn(&Parts) -> u64 + Send + Sync + 'static,
    ) -> Self {
        let policy = HeaderValue::from_str(&rate_limit_policy(limiter.limits().policies()));
        Self {
            limiter: Arc::new(limiter),
            key: Arc::new(key),
            cost: Arc::new(cost),
            // Names and numbers always fit into a header. Without it the answers would only say less.
            policy: policy.unwrap_or(HeaderValue::from_static("")),
        }
    }
}

// ANCHOR: call
/// Asks before the handler runs, and tells the client where it stands: `layer(from_fn_with_state(rate_limit, limit))`.
pub async fn limit(State(by): State<RateLimit>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (key, cost) = ((by.key)(&parts), (by.cost)(&parts));
    let policies = by.limiter.limits().policies();
    let (mut response, decision) = match by.limiter.decide(key, cost).await {
        Ok(decision) if decision.allowed => {
            (next.run(Request::from_parts(parts, body)).await, decision)
        }
        // The body is not read: a client over its limit must not cost us that.
        Ok(decision) => (Error::over(policies, &decision).into_response(), decision),
        Err(error) => return error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(RATE_LIMIT_POLICY, by.policy);
    if let Ok(value) = HeaderValue::from_str(&rate_limit(policies, &decision)) {
        headers.insert(RATE_LIMIT, value);
    }
    if !decision.allowed {
        // 0 would ask for a retry at once.
        headers.insert(RETRY_AFTER, seconds(decision.wait()).max(1).into());
    }
    response
}
// ANCHOR_END: call

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

/// `"api";r=57`: what is left. `"api";r=3;t=90`: too little for this request, and in how many seconds there is enough.
pub fn rate_limit(policies: &[Policy], decision: &Decision) -> String {
    let items = policies.iter().zip(decision.outcomes()).map(|(policy, outcome)| {
        let t = (outcome.wait > 0).then(|| format!(";t={}", seconds(outcome.wait)));
        format!("\"{}\";r={}{}", policy.name(), outcome.remaining, t.unwrap_or_default())
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
    fn each_policy_tells_what_is_left_and_when_there_is_enough() {
        let mut decision = Decision::new(false);
        for (remaining, wait) in [(57, 0), (0, 320_000_001)] {
            decision.push(Outcome { remaining, wait, whole: 900_000_000 });
        }
        let told = rate_limit(&policies(), &decision);
        assert_eq!(told, r#""api";r=57, "burst";r=0;t=321"#);
    }

    #[test]
    fn seconds_are_rounded_up_so_that_nobody_comes_back_too_early() {
        for (micros, whole) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(seconds(micros), whole, "{micros} µs");
        }
    }
}
