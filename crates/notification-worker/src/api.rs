//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{
        DefaultBodyLimit, FromRequestParts, Path, Query, State, WebSocketUpgrade,
        rejection::QueryRejection, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{StatusCode, header::LOCATION, request::Parts},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use edge::{
    FieldError, Json,
    frame::{alive, in_time, method_not_allowed, panicked},
    header::{ServiceKey, with_key},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    accept::accept,
    broker::Broker,
    error::Error,
    hub::{Hub, Live},
    notification::{DeviceToken, JobId, NewNotification, UserId},
    socket::{Socket, bounded},
    store::{Store, attempts::Progress},
};

/// For a whole request and its answer; a stream's ends with its upgrade.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The longest notification is a fifth of it, and JSON may write a byte as six.
const MAX_BODY: usize = 24 * 1_024;

/// What the handlers share.
pub struct Service {
    /// The database.
    pub store: Store,
    /// RabbitMQ.
    pub broker: Arc<Broker>,
    /// Redis.
    pub live: Live,
    /// The sockets of this process.
    pub hub: Arc<Hub>,
    /// Their tasks: the service waits for them when it stops.
    pub sockets: TaskTracker,
    /// Cancelled when the service stops.
    pub stop: CancellationToken,
    /// How often a socket is pinged.
    pub ping_every: Duration,
}

/// All of the service; of a process that only works, what probes ask for. All but the stream is for those who show the
/// key.
pub fn router(service: Arc<Service>, key: ServiceKey, only_works: bool) -> Router {
    let mut guarded = Router::new().route("/healthz", get(alive)).route("/readyz", get(ready));
    if !only_works {
        guarded = guarded
            .route("/notifications", post(notify))
            .route("/notifications/{job_id}", get(progress))
            .route("/users/{id}/stream-tickets", post(ticket))
            .route("/users/{id}/devices/{token}", put(add_device).delete(remove_device));
    }
    let mut router = guarded
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(key, with_key));
    if !only_works {
        // After the layer: whoever opens a stream shows a ticket, and no key.
        router = router.merge(Router::new().route("/users/{id}/stream", get(stream)));
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(service)
}

// ANCHOR: notify
async fn notify(
    State(service): State<Arc<Service>>,
    Json(new): Json<NewNotification>,
) -> Result<impl IntoResponse, Error> {
    let is_new = accept(&service.store, &service.broker, &new).await?;
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = format!("/notifications/{}", new.job_id.as_str());
    Ok((status, [(LOCATION, location)], Json(json!({ "job_id": new.job_id }))))
}
// ANCHOR_END: notify

async fn progress(
    State(service): State<Arc<Service>>,
    InPath(job_id): InPath<JobId>,
) -> Result<Json<Progress>, Error> {
    service.store.progress(&job_id).await?.ok_or(Error::NotFound).map(Json)
}

async fn ticket(
    State(service): State<Arc<Service>>,
    InPath(user): InPath<UserId>,
) -> Result<impl IntoResponse, Error> {
    let ticket = service.live.put_ticket(&user).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ticket": ticket }))))
}

/// The query of a stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    ticket: Option<String>,
    /// The number after which the client wants to hear; all that is kept, if it names none.
    #[serde(default)]
    after: u64,
}

// ANCHOR: stream
async fn stream(
    State(service): State<Arc<Service>>,
    user: Result<InPath<UserId>, Error>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    let InPath(user) = user.map_err(|_| Error::NoTicket)?;
    let wrong = |error: QueryRejection| Error::Invalid(FieldError::new("after", error.body_text()));
    let Query(query) = query.map_err(wrong)?;
    let ticket = query.ticket.as_deref().ok_or(Error::NoTicket)?;
    let seq = query.after.try_into().unwrap_or(i64::MAX);
    // The ticket last: it serves once, and a mistake in the rest must not use it up.
    let upgrade = upgrade.map_err(|_| Error::NoUpgrade)?;
    if !service.live.take_ticket(&user, ticket).await? {
        return Err(Error::NoTicket);
    }
    let tracked = service.sockets.token();
    Ok(bounded(upgrade).on_upgrade(async move |web| {
        // The service waits for it when it stops.
        let _tracked = tracked;
        let (store, ping_every) = (service.store.clone(), service.ping_every);
        let socket = Socket { web, store, user, seq, ping_every, unanswered: 0 };
        socket.serve(&service.hub, &service.stop).await;
    }))
}
// ANCHOR_END: stream

async fn add_device(
    State(service): State<Arc<Service>>,
    InPath((user, token)): InPath<(UserId, DeviceToken)>,
) -> Result<StatusCode, Error> {
    service.store.add_device(&user, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_device(
    State(service): State<Arc<Service>>,
    InPath((user, token)): InPath<(UserId, DeviceToken)>,
) -> Result<StatusCode, Error> {
    service.store.remove_device(&user, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn ready(State(service): State<Arc<Service>>) -> Result<Json<Value>, Error> {
    service.store.ping().await?;
    service.live.ping().await?;
    service.broker.check().await?;
    Ok(Json(json!({ "status": "ready", "sockets": service.hub.sockets() })))
}

/// What stands in the path, parsed. A string that cannot be a name is a malformed path.
struct InPath<T>(T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(it)| Self(it)).map_err(|error| Error::Malformed(error.body_text()))
    }
}
