//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{HeaderName, StatusCode, header::LOCATION, request::Parts},
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post},
};
use edge::{
    FieldError, Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use uuid::Uuid;

use crate::{
    error::Error,
    inventory,
    log::Status,
    order::Order,
    participant::Key,
    payment,
    saga::Record,
    service::{App, Health, Service},
    shipping,
    view::OrderBody,
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A hundred lines of an order are an eighth of it.
const MAX_BODY: usize = 64 * 1_024;
/// Orders on a page.
const PAGE: i64 = 20;
const MAX_PAGE: i64 = 100;

/// All that runs here: the calls of orders, and the participants', each under its name. A participant that runs
/// without an orchestrator has them also without it.
pub fn router(app: &App) -> Router {
    let [inventory, payment, shipping] = app.participants.clone();
    let participants = [
        ("/inventory", inventory.map(inventory::router)),
        ("/payment", payment.map(payment::router)),
        ("/shipping", shipping.map(shipping::router)),
    ];
    let mut router = Router::new();
    for (path, calls) in participants {
        let Some(calls) = calls else { continue };
        if app.service.is_none() {
            router = router.merge(calls.clone());
        }
        router = router.nest(path, calls);
    }
    if let Some(service) = &app.service {
        router = router.merge(orders(Arc::clone(service)));
    }
    whole(router, Arc::clone(&app.health))
}

/// The calls of the orchestrator.
fn orders(service: Arc<Service>) -> Router {
    Router::new()
        .route("/orders", get(list).post(create))
        .route("/orders/{id}", get(show))
        .route("/orders/{id}/retry", post(retry))
        .with_state(service)
}

/// What every part of the service has round it.
fn whole(calls: Router, health: Arc<Health>) -> Router {
    calls
        .merge(Router::new().route("/readyz", get(ready)).with_state(health))
        .route("/healthz", get(alive))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(TIMEOUT, in_time))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TraceLayer::new_for_http().on_failure(()))
        .layer(CatchPanicLayer::custom(panicked))
}

// ANCHOR: create_order
async fn create(
    State(service): State<Arc<Service>>,
    Key(key): Key,
    Json(order): Json<Order>,
) -> Result<impl IntoResponse, Error> {
    let order = order.parse()?;
    // The key decides whether it is a new order. A client that got no answer asks again with the same one.
    let (id, status, log) = service.place(&key, &order).await?;
    Ok((StatusCode::ACCEPTED, [location(id)], Json(OrderBody::new(id, status, &log))))
}
// ANCHOR_END: create_order

async fn show(
    State(service): State<Arc<Service>>,
    OrderId(id): OrderId,
) -> Result<Json<OrderBody>, Error> {
    let (status, log) = service.store.find(id).await?.ok_or(Error::NotFound)?;
    Ok(Json(OrderBody::new(id, status, &log)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    status: Option<Status>,
    after: Option<Uuid>,
    limit: Option<i64>,
}

async fn list(
    State(service): State<Arc<Service>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Error> {
    let Query(page) = page.map_err(|error| Error::wrong("query", &error.body_text()))?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::wrong("limit", "must be from 1 to 100"));
    }
    // One more than asked for shows whether there is a next page.
    let after = page.after.unwrap_or(Uuid::nil());
    let mut orders = service.store.page(page.status, after, limit + 1).await?;
    let has_more = orders.len() > usize::try_from(limit).unwrap_or_default();
    orders.truncate(usize::try_from(limit).unwrap_or_default());
    let next = orders.last().filter(|_| has_more).map(|(last, ..)| {
        let status = page.status.map(|status| format!("&status={}", status.name()));
        format!("/orders?after={last}&limit={limit}{}", status.unwrap_or_default())
    });
    let orders: Vec<_> =
        orders.iter().map(|(id, status, log)| OrderBody::new(*id, *status, log)).collect();
    Ok(Json(json!({ "orders": orders, "next": next })))
}

// ANCHOR: retry
/// Somebody has mended the cause.
async fn retry(
    State(service): State<Arc<Service>>,
    OrderId(id): OrderId,
) -> Result<impl IntoResponse, Error> {
    let (status, mut log) = service.store.find(id).await?.ok_or(Error::NotFound)?;
    if let Some(damage) = log.damage {
        return Err(Error::Conflict(format!("its log cannot be understood: {damage}")));
    }
    if status != Status::Stuck {
        return Err(Error::Conflict(format!("it is {}, not stuck", status.name())));
    }
    log.push(&Record::Resumed, OffsetDateTime::now_utc());
    if !service.store.resume(id, log.status()).await? {
        return Err(Error::Conflict("somebody else has resumed it".to_owned()));
    }
    service.wake();
    Ok((StatusCode::ACCEPTED, [location(id)], Json(OrderBody::new(id, log.status(), &log))))
}
// ANCHOR_END: retry

async fn ready(State(health): State<Arc<Health>>) -> Result<Json<Value>, Error> {
    health.check().await?;
    Ok(Json(json!({ "status": "ready", "fenced_writes": health.fenced_writes() })))
}

fn location(id: Uuid) -> (HeaderName, String) {
    (LOCATION, format!("/orders/{id}"))
}

impl Error {
    /// One mistake.
    fn wrong(field: &str, message: &str) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }
}

/// An id in the path. What cannot be one is simply not found.
struct OrderId(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for OrderId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::<Uuid>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| Error::NotFound)
    }
}
