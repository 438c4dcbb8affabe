//! What does the service say, and to whom? The table of calls, as handlers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, LOCATION},
        request::Parts,
    },
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post},
};
use edge::{
    Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    body::{CreateLink, LinkBody, Stats},
    code::Code,
    create::Created,
    error::Error,
    referrer::Referrer,
    service::Service,
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest URL is an eighth of it, and JSON may write a byte as six.
const MAX_BODY: usize = 16 * 1_024;
/// Everyone's browser asks again each time, or clicks would not be counted nor deletions seen.
const CACHING: HeaderValue = HeaderValue::from_static("private, max-age=0");

/// All of the service, to be served with the client's address as `ConnectInfo<SocketAddr>` in each request. The
/// redirect is the hot path: no layer that it does not need.
pub fn router(service: Arc<Service>) -> Router {
    let calls = Router::new()
        .route("/links", post(create))
        .route("/links/{code}", get(show).delete(delete))
        .route("/links/{code}/stats", get(stats))
        .route("/readyz", get(ready))
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new_for_http().on_failure(()));
    Router::new()
        .route("/{code}", get(redirect))
        .route("/healthz", get(alive))
        .merge(calls)
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(service)
}

// ANCHOR: redirect
async fn redirect(
    State(service): State<Arc<Service>>,
    method: Method,
    code: Code,
    referrer: Referrer,
) -> Result<impl IntoResponse, Error> {
    let link = service.hot.get(&code).await?;
    let location = link.location.clone();
    // HEAD asks where the link leads; it does not go there.
    if method == Method::GET {
        service.clicks.record(link, referrer);
    }
    Ok((StatusCode::FOUND, [(LOCATION, location), (CACHE_CONTROL, CACHING)]))
}
// ANCHOR_END: redirect

async fn create(
    State(service): State<Arc<Service>>,
    _: WithinLimit,
    Json(body): Json<CreateLink>,
) -> Result<impl IntoResponse, Error> {
    let (status, link) = match service.creator.create(&body.parse(&service.public_url)?).await? {
        Created::New(link) => (StatusCode::CREATED, link),
        Created::Existing(link) => (StatusCode::OK, link),
    };
    let location = format!("/links/{}", link.code);
    let location: (HeaderName, String) = (LOCATION, location);
    Ok((status, [location], Json(LinkBody::new(link, &service.public_url))))
}

async fn show(State(service): State<Arc<Service>>, code: Code) -> Result<Json<LinkBody>, Error> {
    let link = service.shards.link(&code).await?;
    Ok(Json(LinkBody::new(link, &service.public_url)))
}

async fn stats(State(service): State<Arc<Service>>, code: Code) -> Result<Json<Stats>, Error> {
    let link = service.shards.link(&code).await?;
    let sums = service.shards.of(&code).clicks(&code).await?;
    Ok(Json(Stats::new(link.code, sums)))
}

async fn delete(State(service): State<Arc<Service>>, code: Code) -> Result<StatusCode, Error> {
    let deleted = service.shards.of(&code).delete(&code).await?;
    service.hot.forget(&code).await;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Error::NotFound) }
}

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    service.shards.ping().await?;
    Ok(Json(json!({ "status": "ready", "dropped_clicks": service.clicks.dropped() })))
}

/// A code in the path. One that cannot be a code is simply not found.
impl<S: Send + Sync> FromRequestParts<S> for Code {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.ok().and_then(|Path(code)| Self::parse(code)).ok_or(Error::NotFound)
    }
}

/// Proof that the client may make one more link. Asked for before the body is read.
struct WithinLimit;

impl FromRequestParts<Arc<Service>> for WithinLimit {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Error> {
        // Who serves the router without telling the addresses gets one limit for all.
        let client = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip());
        service.limit.check(client).map(|()| Self)
    }
}
