//! What does the service say? The notes, and calls that try out what the layers have to be able to handle.

use std::{convert::Infallible, result, time::Duration};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header::CONTENT_TYPE, header::LOCATION};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router, body::Body, routing::get, routing::post};
use edge::frame::{alive, method_not_allowed, not_found};
use edge::{Json, text::is_line};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::context::{Audit, spawn};
use crate::error::{Error, Result};
use crate::onion::{Event, Recent, picture};
use crate::stack::{Others, Settings, warnings, wrap};
use crate::store::{Note, Store};
use crate::{auth::User, metrics::Metrics};

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
pub fn router(store: Store, settings: &Settings, others: Others) -> reqwest::Result<Router> {
    let (recent, metrics) = (Recent::default(), Metrics::default());
    let audit = settings.audit.clone().map(Audit::at).transpose()?;
    let seen = (recent.clone(), metrics.clone());
    let app = App { store, settings: settings.clone(), audit, recent, metrics };
    let calls = Router::new()
        .route("/notes", post(create).get(list))
        .route("/notes/{id}", get(show).delete(delete))
        .route("/stack", get(stack))
        .route("/stack.svg", get(stack_picture))
        .route("/stack/{id}", get(trail))
        .route("/metrics", get(async |State(app): State<App>| app.metrics.text()))
        .route("/panic", post(async || -> StatusCode { panic!("POST /panic asks for it") }))
        .route("/slow", get(slow))
        .route("/echo", post(async |body: Body| body))
        .route("/stream", get(streamed))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app);
    Ok(wrap(calls, settings, seen, others))
}

/// Who asks: what a layer put into the request. Without such a layer, everybody is the same nobody.
type Owner = Option<Extension<User>>;

fn name(owner: &Owner) -> &str {
    owner.as_ref().map_or("nobody", |Extension(User(name))| name)
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
    owner: Owner,
    Json(NoteInput { text }): Json<NoteInput>,
) -> Result<Response> {
    if text.trim().is_empty() || text.chars().count() > 1_000 || !is_line(&text) {
        return Err(Error::invalid("text", "must be one line of 1 to 1,000 characters"));
    }
    let note = app.store.create(name(&owner), &text).await?;
    if let Some(audit) = app.audit {
        // In a task of its own, which is not cut off with the request. It has a time limit itself. If the process ends
        // first, the audit does not hear of this note.
        let told = spawn(async move { audit.tell(text).await });
        let _ = told.await;
    }
    let location = [(LOCATION, format!("/notes/{}", note.id))];
    Ok((StatusCode::CREATED, location, Json(note)).into_response())
}
// ANCHOR_END: create

async fn list(State(app): State<App>, owner: Owner) -> Result<Json<Value>> {
    Ok(Json(json!({ "items": app.store.list(name(&owner)).await? })))
}

/// What cannot be an id is not found.
type Id<T = Uuid> = result::Result<Path<T>, PathRejection>;

async fn show(State(app): State<App>, owner: Owner, id: Id) -> Result<Json<Note>> {
    let Path(id) = id.map_err(|_| Error::NotFound)?;
    Ok(Json(app.store.find(name(&owner), id).await?))
}

/// 204 also for a note that has gone: the client wanted that.
async fn delete(State(app): State<App>, owner: Owner, id: Id) -> Result<StatusCode> {
    let Path(id) = id.map_err(|_| Error::NotFound)?;
    app.store.delete(name(&owner), id).await.map(|()| StatusCode::NO_CONTENT)
}

async fn stack(State(app): State<App>) -> Json<Value> {
    let Settings { stack, form, .. } = &app.settings;
    Json(json!({ "layers": stack, "form": form, "warnings": warnings(&app.settings) }))
}

const SVG: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "image/svg+xml")];

/// The onion: each layer is around those that follow it.
async fn stack_picture(State(app): State<App>) -> impl IntoResponse {
    let (stack, end) = (app.settings.stack.iter().copied().zip(0..), app.settings.stack.len());
    let come = stack.clone().map(|(layer, at)| Event { layer, event: "in", at });
    let go = stack.map(|(layer, at)| Event { layer, event: "out", at: 2 * end as u64 - at });
    (SVG, picture(&come.chain(go).collect::<Vec<_>>()))
}

/// The way of a request, as JSON; or drawn, if the path is its id and `.svg`.
async fn trail(State(app): State<App>, id: Id<String>) -> Result<Response> {
    let Path(id) = id.map_err(|_| Error::NotFound)?;
    if let Some(events) = app.recent.find(&id) {
        return Ok(Json(json!({ "request_id": id, "events": events })).into_response());
    }
    let events = id.strip_suffix(".svg").and_then(|id| app.recent.find(id));
    Ok((SVG, picture(&events.ok_or(Error::NotFound)?)).into_response())
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

/// Does nothing for so long.
async fn slow(query: result::Result<Query<Slow>, QueryRejection>) -> Result<Json<Value>> {
    let query = query.ok().filter(|query| query.ms <= 60_000);
    let Query(Slow { ms }) = query.ok_or(Error::invalid("ms", "must be one number up to 60000"))?;
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
    app.store.ping().await.map(|()| Json(json!({ "status": "ready" })))
}
