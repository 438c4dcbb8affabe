//! What does the service say, and to whom? An API that is limited, and what must never be.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::header::CONTENT_TYPE,
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::get,
};
use edge::{
    Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    error::Error,
    layer::RateLimitLayer,
    limiter::{Limiter, WhenAway},
};

/// For a whole request and its answer, besides what the limiter's store may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A name, and JSON may write a byte as six.
const MAX_BODY: usize = 4 * 1_024;
const LONGEST_NAME: usize = 200;

// ANCHOR: router
/// All of the service. Everything below `/api` is limited, also what is not there: a scanner that walks through
/// paths pays for each. `store_timeout` comes on top of the request's own: a store that is away must end in what was
/// chosen for that.
pub fn router(limit: RateLimitLayer, store_timeout: Duration) -> Router {
    let limiter = limit.limiter();
    let api = Router::new()
        .route("/hello", get(hello).post(hello_to))
        .route("/report", get(report))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(limit);
    Router::new()
        .nest("/api", api)
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(TIMEOUT.saturating_add(store_timeout), in_time))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(limiter)
}
// ANCHOR_END: router

async fn hello() -> Json<Value> {
    Json(json!({ "hello": "world" }))
}

/// Whom to greet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Greeting {
    name: String,
}

async fn hello_to(Json(Greeting { name }): Json<Greeting>) -> Result<Json<Value>, Error> {
    if name.trim().is_empty() || name.len() > LONGEST_NAME {
        return Err(Error::invalid("name", "must have 1 to 200 bytes"));
    }
    Ok(Json(json!({ "hello": name })))
}

/// Stands for what is dear: it costs more than one unit.
async fn report() -> Json<Value> {
    Json(json!({ "report": "a lot of work" }))
}

/// Who fails open is ready without its store: a balancer that took it out of service would make of it the outage
/// that failing open is there to prevent.
async fn ready(State(limiter): State<Arc<Limiter>>) -> Result<Json<Value>, Error> {
    let store = match (limiter.ping().await, limiter.when_away()) {
        (Ok(()), _) => "there",
        (Err(_), Some(WhenAway::FailOpen)) => "away",
        (Err(error), _) => return Err(error),
    };
    Ok(Json(json!({ "status": "ready", "store": store })))
}

/// In the text format of Prometheus.
async fn metrics(State(limiter): State<Arc<Limiter>>) -> impl IntoResponse {
    let counts = &limiter.counts;
    let mode = limiter.when_away().map_or("none", WhenAway::name);
    let mut text = String::from("# TYPE rate_limiter_requests_total counter\n");
    for (decision, count) in [
        ("allowed", &counts.allowed),
        ("refused", &counts.refused),
        ("undecided", &counts.undecided),
    ] {
        let count = count.load(Ordering::Relaxed);
        text += &format!("rate_limiter_requests_total{{decision=\"{decision}\"}} {count}\n");
    }
    let away = counts.store_away.load(Ordering::Relaxed);
    text += "# TYPE rate_limiter_store_away_total counter\n";
    text += &format!("rate_limiter_store_away_total{{mode=\"{mode}\"}} {away}\n");
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
