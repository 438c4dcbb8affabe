//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, State},
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
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    access::EditToken,
    body::{ChangeLink, CreateLink, LinkBody},
    clicks::Referrer,
    code::Code,
    create::Created,
    error::Error,
    long_url::LongUrl,
    service::Service,
    store::{Link, Store},
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest URL is an eighth of it, and JSON may write a byte as six.
const MAX_BODY: usize = 16 * 1_024;
/// Each browser asks again each time. Otherwise clicks would not be counted, and deletions not seen.
const CACHING: HeaderValue = HeaderValue::from_static("private, max-age=0");

/// All of the service, to be served with the client's address as `ConnectInfo<SocketAddr>` in each request. The
/// redirect is the hot path: no layer that it does not need.
pub fn router(service: Arc<Service>) -> Router {
    let calls = Router::new()
        .route("/links", post(create))
        .route("/links/{code}", get(show).patch(change).delete(delete))
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
    // HEAD asks where the link leads; it does not go there.
    if method == Method::GET {
        service.clicks.record(&link, referrer);
    }
    Ok((StatusCode::FOUND, [(LOCATION, link.location.clone()), (CACHE_CONTROL, CACHING)]))
}
// ANCHOR_END: redirect

async fn create(
    State(service): State<Arc<Service>>,
    _: WithinLimit,
    Json(body): Json<CreateLink>,
) -> Result<impl IntoResponse, Error> {
    let new = body.parse(&service.ourselves)?;
    let (status, link, token) = match service.creator.create(&new).await? {
        Created::New(link, token) => (StatusCode::CREATED, link, token),
        Created::Existing(link) => (StatusCode::OK, link, None),
    };
    // This process may remember that the code led nowhere.
    service.hot.forget(&link.code).await;
    let location: (HeaderName, _) = (LOCATION, format!("/links/{}", link.code));
    Ok((status, [location], Json(LinkBody::new(link, &service.ourselves).with_token(token))))
}

async fn show(State(service): State<Arc<Service>>, code: Code) -> Result<Json<LinkBody>, Error> {
    let link = service.shards.link(&code).await?;
    Ok(Json(LinkBody::new(link, &service.ourselves)))
}

async fn stats(State(service): State<Arc<Service>>, code: Code) -> Result<Json<Value>, Error> {
    let link = service.shards.link(&code).await?;
    Ok(Json(service.shards.of(&code).stats(&link).await?))
}

// ANCHOR: change
async fn change(
    State(service): State<Arc<Service>>,
    Owned(link): Owned,
    Json(body): Json<ChangeLink>,
) -> Result<Json<LinkBody>, Error> {
    let (url, expires) = body.parse(&service.ourselves)?;
    let url = url.as_ref().map(LongUrl::as_str);
    service.shards.of(&link.code).update(&link, url, expires).await?;
    service.hot.forget(&link.code).await;
    show(State(service), link.code).await
}

async fn delete(
    State(service): State<Arc<Service>>,
    Owned(link): Owned,
) -> Result<StatusCode, Error> {
    let deleted = service.shards.of(&link.code).delete(&link).await?;
    service.hot.forget(&link.code).await;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Error::NotFound) }
}

/// The link in the path, if the request brings its edit token.
struct Owned(Link);

impl FromRequestParts<Arc<Service>> for Owned {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Error> {
        let code = Code::from_request_parts(parts, service).await?;
        let token = EditToken::from_request_parts(parts, service).await?;
        let link = service.shards.link(&code).await?;
        // What is compared are hashes: the time that it takes tells nothing about the token.
        let is_owner = link.edit_token == Some(token.hash());
        is_owner.then_some(Self(link)).ok_or(Error::WrongToken)
    }
}
// ANCHOR_END: change

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    try_join_all(service.shards.all().iter().map(Store::ping)).await?;
    Ok(Json(json!({ "status": "ready", "dropped_clicks": service.clicks.dropped() })))
}

/// A code in the path. A string that cannot be a code gets 404.
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
        service.limit.check(parts).map(|()| Self)
    }
}
