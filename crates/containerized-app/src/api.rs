//! What does a container answer? The table of calls, as handlers.

use std::{collections::HashMap, ops::RangeInclusive, process::Command, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Query, State},
    http::header::CONTENT_TYPE,
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::{get, post},
};
use edge::{
    FieldError, Json,
    frame::{alive, in_time, method_not_allowed, not_found, panicked},
};
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    backend::Backend,
    error::Error,
    jobs::{self, Asked, Job, Jobs},
    lifecycle::{Lifecycle, Phase},
    limits::Limits,
    memory::{self, Budget},
    metrics,
    who::Who,
};

/// What the handlers share.
#[derive(Debug)]
pub struct Api {
    /// The phase of this process.
    pub lifecycle: Lifecycle,
    /// What it depends on.
    pub backend: Option<Backend>,
    /// What it does.
    pub jobs: Jobs,
    /// What the kernel allows.
    pub limits: Limits,
    /// The memory that work may take.
    pub budget: Budget,
}

/// All calls.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/jobs", post(job))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
        .route("/who", get(who))
        .route("/eat", post(eat))
        .route("/fork", post(fork))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Duration::from_secs(15), in_time))
        .layer(DefaultBodyLimit::max(16 * 1_024))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(api)
}

async fn home(State(api): State<Arc<Api>>) -> Json<Value> {
    let phase = api.lifecycle.phase().name();
    Json(json!({ "message": "Hello, Docker!", "pid": std::process::id(), "phase": phase }))
}

// ANCHOR: ready
/// Whether this replica should get requests. `GET /healthz`, which asks nobody, says whether it should be restarted.
async fn ready(State(api): State<Arc<Api>>) -> Result<Json<Value>, Error> {
    match api.lifecycle.phase() {
        Phase::Starting => return Err(Error::NotReady("it starts")),
        Phase::Draining => return Err(Error::NotReady("it ends")),
        Phase::Ready => {}
    }
    match &api.backend {
        Some(backend) if !backend.answers().await => Err(Error::NotReady("its backend is away")),
        _ => Ok(Json(json!({ "status": "ready" }))),
    }
}
// ANCHOR_END: ready

async fn job(State(api): State<Arc<Api>>, Json(asked): Json<Asked>) -> Result<Json<Job>, Error> {
    // While it drains, it takes what still comes.
    if api.lifecycle.phase() == Phase::Starting {
        return Err(Error::NotReady("it starts"));
    }
    let job = Job::parse(asked).map_err(Error::Invalid)?;
    Ok(Json(api.jobs.run(job).await))
}

async fn show_metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let page = metrics::page(&api.jobs, api.lifecycle.phase(), api.budget.held());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], page)
}

async fn who(State(api): State<Arc<Api>>) -> Json<Who> {
    Json(Who::am_i(api.limits))
}

/// Takes memory for a while.
async fn eat(
    State(api): State<Arc<Api>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, Error> {
    let mib = number(&query, "mib", 1..=memory::MOST, None)?;
    let longest = u32::try_from(jobs::LONGEST).unwrap_or(u32::MAX);
    let milliseconds = number(&query, "milliseconds", 0..=longest, Some(0))?;
    let held = api.budget.take(mib)?;
    sleep(Duration::from_millis(milliseconds.into())).await;
    drop(held);
    Ok(Json(json!({ "mib": mib, "milliseconds": milliseconds })))
}

/// Leaves orphans behind: a shell starts them and ends at once. They end a little later.
async fn fork(Query(query): Query<HashMap<String, String>>) -> Result<Json<Value>, Error> {
    let children = number(&query, "children", 1..=1_000, None)?;
    let script = "n=0; while [ $n -lt $0 ]; do sleep 0.5 & n=$((n+1)); done";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, &children.to_string()]);
    let mut shell = shell.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoShell,
        _ => Error::NoProcess(error),
    })?;
    // As number one we collect every child, this one too; then there is nothing left to wait for.
    let _ = spawn_blocking(move || shell.wait()).await;
    Ok(Json(json!({ "children": children })))
}

/// A whole number of the query.
fn number(
    query: &HashMap<String, String>,
    field: &str,
    range: RangeInclusive<u32>,
    default: Option<u32>,
) -> Result<u32, Error> {
    let given = query.get(field).map(|text| text.parse().ok().filter(|n| range.contains(n)));
    let number = given.unwrap_or(default);
    number.ok_or_else(|| {
        let words = format!("must be a whole number from {} to {}", range.start(), range.end());
        Error::Invalid(vec![FieldError::new(field, words)])
    })
}
