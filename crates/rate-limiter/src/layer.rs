//! How does a router get its limit? By a `tower` layer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    http::{HeaderValue, request::Parts},
    response::{IntoResponse, Response},
};
use tower::{Layer, Service};

use crate::{
    algorithm::Algorithm,
    client::Clients,
    error::Error,
    fields,
    key::Key,
    limiter::{Limiter, Store},
    limits::Limits,
    quota::{InvalidQuota, Policy, Quota},
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
/// use rate_limiter::{algorithm::Algorithm, key::Key, layer::RateLimitLayer, limiter::Store, quota::Quota};
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
        let policy = fields::rate_limit_policy(limits.policies());
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
        // The one that was asked whether it is ready is the one to call; the clone was not.
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
                // The body is not read: who is over the limit must not cost us that.
                Ok(decision) => {
                    (Error::over(layer.limits.policies(), &decision).into_response(), decision)
                }
                Err(error) => return Ok(error.into_response()),
            };
            let policies = layer.limits.policies();
            fields::insert(response.headers_mut(), &layer.policy, policies, &decision);
            Ok(response)
        })
    }
    // ANCHOR_END: call
}
