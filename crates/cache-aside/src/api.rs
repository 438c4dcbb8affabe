//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, LOCATION},
        request::Parts,
    },
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edge::{
    Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    body::{self, IdsQuery, UserBody},
    error::Error,
    service::Service,
    user::{User, UserId},
};

/// For a whole request and its answer, beside the wait of a change that cannot reach Redis.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Name and address are an eighth of it, and JSON may write a byte as six.
const MAX_BODY: usize = 16 * 1_024;
const JSON: (HeaderName, HeaderValue) =
    (CONTENT_TYPE, HeaderValue::from_static("application/json"));
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// All of the service.
pub fn router(service: Arc<Service>) -> Router {
    let longest = TIMEOUT + service.reader.trust.period;
    Router::new()
        .route("/users", post(create).get(show_many))
        .route("/users/{id}", get(show).put(update).delete(delete))
        .route("/readyz", get(ready))
        .layer(from_fn_with_state(longest, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new_for_http().on_failure(()))
        .route("/healthz", get(alive))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(service)
}

async fn create(
    State(service): State<Arc<Service>>,
    Json(body): Json<UserBody>,
) -> Result<impl IntoResponse, Error> {
    let (name, email) = body.parse()?;
    let user = service.writer.create(&name, &email).await?;
    let location = format!("/users/{}", user.id.get());
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(user)))
}

// ANCHOR: show
async fn show(State(service): State<Arc<Service>>, id: UserId) -> Result<Response, Error> {
    let read = service.reader.get(id).await?;
    let answer = match read.user {
        Some(user) => ([JSON], user.into_string() + "\n").into_response(),
        None => Error::NotFound.into_response(),
    };
    Ok(([(CACHE_STATUS, read.source.to_string())], answer).into_response())
}
// ANCHOR_END: show

async fn show_many(
    State(service): State<Arc<Service>>,
    query: Result<Query<IdsQuery>, QueryRejection>,
) -> Result<impl IntoResponse, Error> {
    let Query(query) = query.map_err(|_| Error::field("ids", "must be given once: ?ids=1,2,3"))?;
    let ids = query.parse()?;
    let (status, users) = body::many(&ids, service.reader.get_many(&ids).await?);
    Ok(([(CACHE_STATUS, HeaderValue::from_static(status)), JSON], users))
}

async fn update(
    State(service): State<Arc<Service>>,
    id: UserId,
    Json(body): Json<UserBody>,
) -> Result<Json<User>, Error> {
    let (name, email) = body.parse()?;
    Ok(Json(service.writer.update(id, &name, &email).await?))
}

async fn delete(State(service): State<Arc<Service>>, id: UserId) -> Result<StatusCode, Error> {
    service.writer.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Without Redis it is slower, and ready all the same.
async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    service.writer.store.ping().await?;
    let believed = service.reader.trust.believed().is_some();
    Ok(Json(json!({ "status": "ready", "redis": if believed { "believed" } else { "away" } })))
}

/// An id in the path. One that cannot be an id is simply not found.
impl<S: Send + Sync> FromRequestParts<S> for UserId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.ok().and_then(|Path(id)| Self::parse(&id)).ok_or(Error::NotFound)
    }
}
