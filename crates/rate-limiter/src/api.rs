//! What does the service say? An API that is limited, and the paths that never are.

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
    FieldError, Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    error::Error,
    layer::{RateLimit, limit},
    limiter::{Limiter, WhenAway},
};

/// The longest time for a request and its answer, without the time that the limiter's store may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Much more than a name takes, even if JSON writes each byte as six.
const MAX_BODY: usize = 4 * 1_024;
const LONGEST_NAME: usize = 200;

// ANCHOR: router
/// All of the service. Everything below `/api` is limited, also paths that do not exist: a scanner that walks through
/// paths pays for each. `store_timeout` is added to the request's own time, so that a request whose store is away gets
/// the answer that was chosen for that case, and not our own time-out.
pub fn router(rate_limit: RateLimit, store_timeout: Duration) -> Router {
    let limiter = Arc::clone(&rate_limit.limiter);
    let api = Router::new()
        .route("/hello", get(hello).post(hello_to))
        .route("/report", get(report))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(rate_limit, limit));
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
        return Err(Error::Invalid(vec![FieldError::new("name", "must have 1 to 200 bytes")]));
    }
    Ok(Json(json!({ "hello": name })))
}

/// Stands for expensive work: it costs more than one unit.
async fn report() -> Json<Value> {
    Json(json!({ "report": "a lot of work" }))
}

/// A limiter that fails open is ready without its store. A balancer that took it out of service would make the outage
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
