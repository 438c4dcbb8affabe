//! What does the service say, and to whom? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header::LOCATION},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use edge::{
    Json,
    frame::framed,
    header::{ServiceKey, with_key},
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    error::Error,
    log::{Log, Outcome, Status},
    orchestrator::Orchestrator,
    order::Order,
    participant::{Key, order_id},
    saga::{Call, Record, STEPS},
    store::{Database, Lease, Store, orders::Standing},
};

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A hundred lines of an order are an eighth of it.
const MAX_BODY: usize = 64 * 1_024;

/// The calls of the orchestrator.
pub fn orders(orchestrator: Arc<Orchestrator>) -> Router {
    let reading = reading(orchestrator.store.clone());
    Router::new()
        .route("/orders", post(create))
        .route("/orders/{id}/retry", post(retry))
        .with_state(orchestrator)
        .merge(reading)
}

/// Those of them that only read.
pub fn reading(store: Store) -> Router {
    Router::new().route("/orders", get(list)).route("/orders/{id}", get(show)).with_state(store)
}

/// What every part of the service has around it. `GET /readyz` looks at these databases. With a key, only callers who
/// show it get in.
pub fn whole(calls: Router, databases: Vec<Database>, key: Option<&str>) -> Router {
    let guarded = calls.layer(from_fn_with_state(ServiceKey::new(key), with_key));
    framed(guarded.route("/readyz", get(ready).with_state(databases)), TIMEOUT, MAX_BODY)
}

async fn create(
    State(orchestrator): State<Arc<Orchestrator>>,
    Key(key): Key,
    Json(order): Json<Order>,
) -> Result<Response, Error> {
    // The key decides whether it is a new order. A client that got no answer sends the same one again.
    let inserted = orchestrator.store.insert(&key, &order).await;
    // Also after an error: the order may be there, and only the answer was lost.
    orchestrator.wake.notify_one();
    Ok(accepted(&orchestrator.store.find(inserted?).await?))
}

/// 202: it is written down, and will end. `Location` says where to look.
pub fn accepted(order: &Standing) -> Response {
    let location = [(LOCATION, format!("/orders/{}", order.id))];
    (StatusCode::ACCEPTED, location, Json(view(order))).into_response()
}

async fn show(State(store): State<Store>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    Ok(Json(view(&store.find(order_id(&id)?).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    status: Option<Status>,
}

/// The newest orders, such as those that wait for a human.
async fn list(
    State(store): State<Store>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Error> {
    let Query(Wanted { status }) =
        wanted.map_err(|error| Error::invalid("status", &error.body_text()))?;
    Ok(Json(json!({ "orders": store.newest(status).await? })))
}

// ANCHOR: retry
/// A human has mended the cause.
async fn retry(
    State(orchestrator): State<Arc<Orchestrator>>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let mut order = orchestrator.store.find(order_id(&id)?).await?;
    if let Some(damage) = order.log.damage {
        return Err(Error::Conflict(format!("its log cannot be understood: {damage}")));
    }
    if order.status != Status::Stuck {
        return Err(Error::Conflict(format!("it is {}, not stuck", order.status)));
    }
    order.log.push(&Record::Resumed, OffsetDateTime::now_utc());
    order.status = order.log.status();
    let due_now = Lease::Release(Duration::ZERO);
    let append =
        orchestrator.store.append(order.id, order.fence, &[Record::Resumed], order.status, due_now);
    let appended = append.await;
    // Also after an error: it may be resumed, and only the answer was lost.
    orchestrator.wake.notify_one();
    if !appended? {
        return Err(Error::Conflict("somebody else has resumed it".to_owned()));
    }
    Ok(accepted(&order))
}
// ANCHOR_END: retry

async fn ready(State(databases): State<Vec<Database>>) -> Result<Json<Value>, Error> {
    for database in &databases {
        database.ping().await?;
    }
    Ok(Json(json!({ "status": "ready" })))
}

/// What clients see of an order: the actions in their order, and the compensations in the order in which they were
/// asked for.
fn view(Standing { id, status, log, .. }: &Standing) -> Value {
    let actions = STEPS.iter().map(|step| step.action);
    let compensations = log.asked.iter().copied().filter(|call| call.step().is_none());
    let steps = actions.chain(compensations).map(|call| {
        let progress = log.of(call);
        json!({
            "name": call,
            "status": step_status(call, log),
            "attempts": progress.attempts,
            "last_error": progress.last_error,
            "at": progress.at.and_then(|at| at.format(&Rfc3339).ok()),
        })
    });
    // Why it is stuck, or why it turned round.
    let errors = || STEPS.iter().rev().find_map(|step| log.of(step.action).last_error.as_ref());
    let reason = log.parked.as_ref().or(errors().filter(|_| log.compensates()));
    json!({ "id": id, "status": status, "reason": reason, "steps": steps.collect::<Vec<_>>() })
}

fn step_status(call: Call, log: &Log) -> Value {
    let undo = call.step().and_then(|step| step.compensation);
    match log.of(call).outcome {
        _ if undo.is_some_and(|undo| log.of(undo).outcome == Some(Outcome::Done)) => {
            json!("compensated")
        }
        Some(outcome) => json!(outcome),
        None if log.parked.is_some() && log.asked.last() == Some(&call) => json!("stuck"),
        None if log.asked.contains(&call) => json!("running"),
        None if log.compensates() => json!("skipped"),
        None => json!("pending"),
    }
}
