//! What does the service say? The notes, and calls that try out what the layers have to be able to handle.

use std::{convert::Infallible, time::Duration};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::{StatusCode, header::CONTENT_TYPE, header::LOCATION, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use edge::frame::{alive, method_not_allowed, not_found};
use edge::{FieldError, Json, text::is_line};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::auth::User;
use crate::context::{Audit, spawn};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::onion::{Recent, picture};
use crate::stack::{Settings, warnings, wrap};
use crate::store::{Note, Store};

/// The longest time that `GET /slow` takes, in milliseconds.
const SLOWEST: u64 = 60_000;

/// Where the handlers find everything.
#[derive(Clone)]
struct App {
    store: Store,
    settings: Settings,
    audit: Option<Audit>,
    recent: Recent,
    metrics: Metrics,
}

/// All of the service.
pub fn router(store: Store, settings: &Settings) -> reqwest::Result<Router> {
    let (recent, metrics) = (Recent::default(), Metrics::default());
    let app = App {
        store,
        settings: settings.clone(),
        audit: settings.audit.clone().map(Audit::at).transpose()?,
        recent: recent.clone(),
        metrics: metrics.clone(),
    };
    let calls = Router::new()
        .route("/notes", post(create).get(list))
        .route("/notes/{id}", get(show).delete(delete))
        .route("/stack", get(stack))
        .route("/stack.svg", get(stack_picture))
        .route("/stack/{id}", get(trail))
        .route("/metrics", get(async |State(app): State<App>| app.metrics.text()))
        .route("/panic", post(async || -> StatusCode { panic!("POST /panic asks for it") }))
        .route("/slow", get(slow))
        .route("/echo", post(async |body: Body| ([(CONTENT_TYPE, BYTES)], body)))
        .route("/stream", get(streamed))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app);
    Ok(wrap(calls, settings, recent, &metrics))
}

const BYTES: &str = "application/octet-stream";

/// Who asks. Without a layer that finds out, everybody is the same nobody.
struct Owner(String);

impl<S: Send + Sync> FromRequestParts<S> for Owner {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> std::result::Result<Self, Infallible> {
        let user = parts.extensions.get::<User>();
        Ok(Self(user.map_or_else(|| "nobody".to_owned(), |user| user.0.clone())))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `text`")]
struct NoteInput {
    text: String,
}

// ANCHOR: create
/// Keeps a note. Nothing here knows of ids, keys, limits and logs.
async fn create(
    State(app): State<App>,
    Owner(owner): Owner,
    Json(NoteInput { text }): Json<NoteInput>,
) -> Result<Response> {
    if text.trim().is_empty() || text.chars().count() > 1_000 || !is_line(&text) {
        let words = "must be one line of 1 to 1,000 characters";
        return Err(Error::Invalid(FieldError::new("text", words)));
    }
    let note = app.store.create(&owner, &text).await?;
    if let Some(audit) = app.audit {
        // In a task of its own, which is not cut off with the request. It has a time limit itself.
        let told = spawn(async move { audit.tell(text).await });
        let _ = told.await;
    }
    let location = [(LOCATION, format!("/notes/{}", note.id))];
    Ok((StatusCode::CREATED, location, Json(note)).into_response())
}
// ANCHOR_END: create

async fn list(State(app): State<App>, Owner(owner): Owner) -> Result<Json<Value>> {
    Ok(Json(json!({ "items": app.store.list(&owner).await? })))
}

/// What cannot be an id is not found.
type Id = std::result::Result<Path<Uuid>, PathRejection>;

async fn show(State(app): State<App>, Owner(owner): Owner, id: Id) -> Result<Json<Note>> {
    let Path(id) = id.map_err(|_| Error::NotFound)?;
    Ok(Json(app.store.find(&owner, id).await?))
}

/// 204 also for a note that has gone: the client wanted that.
async fn delete(State(app): State<App>, Owner(owner): Owner, id: Id) -> Result<StatusCode> {
    let Path(id) = id.map_err(|_| Error::NotFound)?;
    app.store.delete(&owner, id).await.map(|()| StatusCode::NO_CONTENT)
}

async fn stack(State(app): State<App>) -> Json<Value> {
    let Settings { stack, form, .. } = &app.settings;
    Json(json!({ "layers": stack, "form": form, "warnings": warnings(stack) }))
}

const SVG: [(axum::http::HeaderName, &str); 1] = [(CONTENT_TYPE, "image/svg+xml")];

/// The onion: each layer is around those that follow it.
async fn stack_picture(State(app): State<App>) -> impl IntoResponse {
    let names = app.settings.stack.iter().map(|name| name.text());
    let bars: Vec<_> = names
        .zip(0..)
        .map(|(name, n)| (name, n, Some(2 * app.settings.stack.len() as u64 - n)))
        .collect();
    (SVG, picture(&bars, ""))
}

/// The way of a request, as JSON, or drawn if the path ends with `.svg`.
async fn trail(State(app): State<App>, Path(id): Path<String>) -> Result<Response> {
    let drawn = id.strip_suffix(".svg");
    let found = app.recent.find(drawn.unwrap_or(&id)).ok_or(Error::NotFound)?;
    let passages = found.passages();
    let bars: Vec<_> = passages.iter().map(|it| (it.layer, it.entered, it.left)).collect();
    Ok(match drawn {
        Some(_) => (SVG, picture(&bars, "µs")).into_response(),
        None => Json(json!({ "request_id": id, "layers": passages })).into_response(),
    })
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

/// Does nothing for so long.
async fn slow(query: std::result::Result<Query<Slow>, QueryRejection>) -> Result<Json<Value>> {
    let query = query.ok().filter(|query| query.ms <= SLOWEST);
    let words = "must be a whole number up to 60000, once";
    let Query(Slow { ms }) = query.ok_or(Error::Invalid(FieldError::new("ms", words)))?;
    sleep(Duration::from_millis(ms)).await;
    Ok(Json(json!({ "slept_ms": ms })))
}

/// Ten lines, one after the other.
async fn streamed() -> impl IntoResponse {
    let lines = stream::iter(1..=10).then(async |n| {
        sleep(Duration::from_millis(20)).await;
        Ok::<_, Infallible>(format!("line {n} of 10\n"))
    });
    ([(CONTENT_TYPE, "text/plain")], Body::from_stream(lines))
}

async fn ready(State(app): State<App>) -> Result<Json<Value>> {
    app.store.ping().await?;
    Ok(Json(json!({ "status": "ready" })))
}
