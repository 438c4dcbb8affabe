//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{
        DefaultBodyLimit, FromRequestParts, Path, Query, Request, State, WebSocketUpgrade,
        rejection::QueryRejection, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{AUTHORIZATION, LOCATION},
        request::Parts,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use edge::{
    FieldError, Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    accept::{Accepted, accept},
    broker::Broker,
    error::Error,
    hub::{Hub, Live},
    notification::{DeviceToken, JobId, NewNotification, UserId},
    socket::{Patience, Socket, bounded},
    store::{Progress, Store},
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
    /// With sockets.
    pub patience: Patience,
    /// How long a ticket is good for.
    pub ticket_seconds: u64,
    /// The key that calls must show.
    pub api_key: Option<String>,
}

/// All of the service; of a process that only works, what probes ask for.
pub fn router(service: Arc<Service>, only_works: bool) -> Router {
    let mut guarded = Router::new().route("/healthz", get(alive)).route("/readyz", get(ready));
    if !only_works {
        guarded = guarded
            .route("/notifications", post(notify))
            .route("/notifications/{job_id}", get(progress))
            .route("/notifications/{job_id}/requeue", post(requeue))
            .route("/users/{id}/stream-tickets", post(ticket))
            .route("/users/{id}/devices/{token}", put(add_device).delete(remove_device));
    }
    let mut router = guarded
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&service), with_key));
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
    let status = match accept(&service.store, &service.broker, &new).await? {
        Accepted::New => StatusCode::ACCEPTED,
        Accepted::Known => StatusCode::OK,
    };
    let location: (HeaderName, String) = (LOCATION, format!("/notifications/{}", new.job_id));
    Ok((status, [location], Json(json!({ "job_id": new.job_id }))))
}
// ANCHOR_END: notify

async fn progress(
    State(service): State<Arc<Service>>,
    InPath(job_id): InPath<JobId>,
) -> Result<Json<Progress>, Error> {
    service.store.progress(&job_id).await?.ok_or(Error::NotFound).map(Json)
}

async fn requeue(
    State(service): State<Arc<Service>>,
    InPath(job_id): InPath<JobId>,
) -> Result<impl IntoResponse, Error> {
    service.broker.ready()?;
    match service.store.revive(&job_id).await? {
        Some((message, priority)) => {
            // From here on it is queued: if this fails, the sweep does it.
            if let Err(error) = service.broker.publish(&message, priority).await {
                tracing::debug!(%error, "left to the sweep");
            }
            Ok((StatusCode::ACCEPTED, Json(json!({ "job_id": job_id }))))
        }
        None if service.store.progress(&job_id).await?.is_some() => {
            Err(Error::Conflict("this notification is not dead"))
        }
        None => Err(Error::NotFound),
    }
}

async fn ticket(
    State(service): State<Arc<Service>>,
    InPath(user): InPath<UserId>,
) -> Result<impl IntoResponse, Error> {
    let ticket = service.live.put_ticket(&user, service.ticket_seconds).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ticket": ticket }))))
}

/// The query of a stream. As text: what is wrong with it is told in its order.
#[derive(Debug, Deserialize)]
struct StreamQuery {
    ticket: Option<String>,
    after: Option<String>,
}

impl StreamQuery {
    /// The number after which the client wants to hear; all that is kept, if it names none.
    fn after(&self) -> Result<i64, Error> {
        let after = self.after.as_deref().unwrap_or("0").parse().ok().filter(|&it: &i64| it >= 0);
        let wrong = || FieldError::new("after", "must be a whole number from 0");
        after.ok_or_else(|| Error::Invalid(wrong()))
    }
}

// ANCHOR: stream
async fn stream(
    State(service): State<Arc<Service>>,
    user: Result<InPath<UserId>, Error>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    let InPath(user) = user.map_err(|_| Error::NoTicket)?;
    let Query(query) = query.map_err(|error| Error::Malformed(error.body_text()))?;
    // Nothing but a ticket may get into a key of Redis.
    let is_ticket = |it: &&str| it.len() == 64 && it.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ticket = query.ticket.as_deref().filter(is_ticket).ok_or(Error::NoTicket)?;
    // The ticket last: it serves once, and a mistake in the rest must not use it up.
    let after = query.after()?;
    let upgrade = upgrade.map_err(|_| Error::NoUpgrade)?;
    if !service.live.take_ticket(&user, ticket).await? {
        return Err(Error::NoTicket);
    }
    let (store, hub, patience) = (service.store.clone(), service.hub.clone(), service.patience);
    let (tasks, stop) = (service.sockets.clone(), service.stop.clone());
    Ok(bounded(upgrade).on_upgrade(move |socket| {
        // Owned by the service, which waits for it when it stops.
        tasks.track_future(Socket::serve(socket, store, hub, (user, after), patience, stop))
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

// ANCHOR: with_key
/// Lets a call in that shows the key, if there is one.
async fn with_key(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    if let Some(key) = &service.api_key {
        let sent = bearer(request.headers()).ok_or(Error::NoKey)?;
        // Digests: how long the comparison takes says nothing about how much of the key was right.
        if Sha256::digest(sent) != Sha256::digest(key) {
            return Err(Error::NoKey);
        }
    }
    Ok(next.run(request).await)
}

/// What follows `Bearer`, in any case and after any number of spaces (RFC 9110, section 11). Nothing if there are two
/// such headers: a proxy may have checked the other one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (scheme, credentials) = all.next()?.to_str().ok()?.trim().split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer") && all.next().is_none();
    is_bearer.then(|| credentials.trim())
}
// ANCHOR_END: with_key

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn after_is_a_whole_number() {
        let after = |text: &str| StreamQuery { ticket: None, after: Some(text.to_owned()) }.after();
        assert_eq!(after("7").unwrap(), 7);
        assert_eq!(StreamQuery { ticket: None, after: None }.after().unwrap(), 0);
        for bad in ["", "-1", "x", "1.5", "9223372036854775808"] {
            assert!(after(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_scheme_has_any_case_and_the_key_stands_after_any_number_of_spaces() {
        let sent = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        for good in ["Bearer key", "bearer key", "BEARER   key", "  Bearer key "] {
            assert_eq!(sent(&[good]).as_deref(), Some("key"), "{good:?}");
        }
        for bad in [&[][..], &["key"], &["Bearer"], &["Basic key"], &["Bearer key", "Bearer key"]] {
            assert_eq!(sent(bad), None, "{bad:?}");
        }
    }
}
