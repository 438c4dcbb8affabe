//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{
        DefaultBodyLimit, FromRequestParts, Path, Query, Request, State, WebSocketUpgrade,
        rejection::QueryRejection, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{
        HeaderName, StatusCode,
        header::{AUTHORIZATION, LOCATION},
        request::Parts,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use edge::{
    Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    accept::Accepted,
    body::{Job, Notify, ProgressBody, StreamQuery, TicketBody},
    error::Error,
    ids::{DeviceToken, JobId, UserId},
    service::{App, Role, Service},
    socket::{LONGEST_MESSAGE, Socket},
    ticket::Ticket,
};

/// For a whole request and its answer; a stream's ends with its upgrade.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The longest notification is a fifth of it, and JSON may write a byte as six.
const MAX_BODY: usize = 24 * 1_024;
/// For each socket. The default of 128 KiB is for those who have much to say.
const READ_BUFFER: usize = 1_024;

/// What this process serves.
pub fn router(app: &App) -> Router {
    match app.role() {
        Role::Worker => worker(app.service()),
        Role::All | Role::Api => calls(app.service()),
    }
}

/// All of the service.
fn calls(service: Arc<Service>) -> Router {
    Router::new()
        .route("/notifications", post(notify))
        .route("/notifications/{job_id}", get(progress))
        .route("/notifications/{job_id}/requeue", post(requeue))
        .route("/users/{id}/stream-tickets", post(ticket))
        .route("/users/{id}/devices/{token}", put(add_device).delete(remove_device))
        .route("/readyz", get(ready))
        .route("/healthz", get(alive))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&service), with_key))
        // After the layer: whoever opens a stream shows a ticket, and no key.
        .merge(Router::new().route("/users/{id}/stream", get(stream)))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new_for_http().on_failure(()).make_span_with(span))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(service)
}

/// What a process that is only a worker says.
fn worker(service: Arc<Service>) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&service), with_key))
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(service)
}

// ANCHOR: notify
async fn notify(
    State(service): State<Arc<Service>>,
    Json(body): Json<Notify>,
) -> Result<impl IntoResponse, Error> {
    let new = body.parse()?;
    let status = match service.acceptor.accept(&new).await? {
        Accepted::New => StatusCode::ACCEPTED,
        Accepted::Known => StatusCode::OK,
    };
    let location: (HeaderName, String) = (LOCATION, format!("/notifications/{}", new.job_id));
    Ok((status, [location], Json(Job { job_id: new.job_id })))
}
// ANCHOR_END: notify

async fn progress(
    State(service): State<Arc<Service>>,
    InPath(job_id): InPath<JobId>,
) -> Result<Json<ProgressBody>, Error> {
    let progress = service.store.progress(&job_id).await?.ok_or(Error::NotFound)?;
    Ok(Json(progress.into()))
}

async fn requeue(
    State(service): State<Arc<Service>>,
    InPath(job_id): InPath<JobId>,
) -> Result<impl IntoResponse, Error> {
    service.broker.ping()?;
    match service.store.revive(&job_id).await? {
        Some((message, priority)) => {
            // From here on it is queued: if this fails the sweep does it.
            if let Err(error) = service.broker.publish(&message, priority).await {
                tracing::debug!(%error, "left to the sweep");
            }
            Ok((StatusCode::ACCEPTED, Json(Job { job_id })))
        }
        None if service.store.progress(&job_id).await?.is_some() => Err(Error::NotDead),
        None => Err(Error::NotFound),
    }
}

async fn ticket(
    State(service): State<Arc<Service>>,
    InPath(user): InPath<UserId>,
) -> Result<impl IntoResponse, Error> {
    let ticket = Ticket::random()?;
    service.live.put_ticket(&user, &ticket, service.ticket_seconds).await?;
    Ok((StatusCode::CREATED, Json(TicketBody { ticket: ticket.to_string() })))
}

// ANCHOR: stream
async fn stream(
    State(service): State<Arc<Service>>,
    user: Result<InPath<UserId>, Error>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    let InPath(user) = user.map_err(|_| Error::NoTicket)?;
    let Query(mut query) = query.map_err(|error| Error::Malformed(error.body_text()))?;
    let ticket = query.ticket.take().and_then(Ticket::parse).ok_or(Error::NoTicket)?;
    if !service.live.take_ticket(&user, &ticket).await? {
        return Err(Error::NoTicket);
    }
    let after = query.after()?;
    let upgrade = upgrade.map_err(|_| Error::NoUpgrade)?;
    let position = service.store.position_of(&user, after).await?;
    let (store, hub, patience) = (service.store.clone(), service.hub.clone(), service.patience);
    let (tasks, stop) = (service.sockets.clone(), service.stop.clone());
    Ok(upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(LONGEST_MESSAGE)
        .max_frame_size(LONGEST_MESSAGE)
        .on_upgrade(move |socket| {
            // Owned by the service, which waits for it when it stops.
            tasks.track_future(Socket::serve(socket, store, hub, (user, position), patience, stop))
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
    service.broker.ping()?;
    Ok(Json(json!({ "status": "ready", "sockets": service.hub.sockets() })))
}

/// What stands in the path. What cannot be a name is told so.
struct InPath<T>(T);

impl<T, S> FromRequestParts<S> for InPath<T>
where
    T: FromPath,
    S: Send + Sync,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<T::Raw>::from_request_parts(parts, state).await;
        let Path(raw) = path.map_err(|error| Error::Malformed(error.body_text()))?;
        T::from_path(raw).map(Self)
    }
}

/// What can be parsed from a path's segments.
trait FromPath: Sized {
    type Raw: serde::de::DeserializeOwned + Send;
    fn from_path(raw: Self::Raw) -> Result<Self, Error>;
}

impl FromPath for JobId {
    type Raw = String;
    /// Nobody can have an id that is none. Summaries have ids of our own, and are nobody's business.
    fn from_path(raw: String) -> Result<Self, Error> {
        Self::parse(raw).map_err(|_| Error::NotFound)
    }
}

impl FromPath for UserId {
    type Raw = String;
    fn from_path(raw: String) -> Result<Self, Error> {
        Self::parse(raw).map_err(|message| Error::invalid("user_id", message))
    }
}

impl FromPath for (UserId, DeviceToken) {
    type Raw = (String, String);
    fn from_path((user, token): Self::Raw) -> Result<Self, Error> {
        let token = DeviceToken::parse(token).map_err(|wrong| Error::invalid("token", wrong))?;
        Ok((UserId::from_path(user)?, token))
    }
}

// ANCHOR: with_key
/// Lets those in who have the key, if there is one.
async fn with_key(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    if let Some(key) = &service.api_key {
        let header = request.headers().get(AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
        let sent = header.and_then(|header| header.strip_prefix(b"Bearer ")).ok_or(Error::NoKey)?;
        // Digests: how long the comparison takes says nothing about how much of the key was right.
        if Sha256::digest(sent) != Sha256::digest(key) {
            return Err(Error::NoKey);
        }
    }
    Ok(next.run(request).await)
}
// ANCHOR_END: with_key

/// Without the query: tickets do not belong into a log.
fn span(request: &Request) -> tracing::Span {
    tracing::debug_span!("request", method = %request.method(), path = request.uri().path())
}
