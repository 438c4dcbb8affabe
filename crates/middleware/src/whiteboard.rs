//! Middleware as one writes it in the interview: functions that run before the handler, one after the other.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use tower_http::{cors::CorsLayer, timeout::TimeoutLayer};
use uuid::Uuid;

/// `app.use((req, res, next) => { console.log(req.method); next(); })`
async fn log(request: Request, next: Next) -> Response {
    println!("{} {}", request.method(), request.uri());
    next.run(request).await
}

/// `app.use((req, res, next) => req.headers.authorization === … ? next() : res.sendStatus(401))`
async fn authenticate(request: Request, next: Next) -> Response {
    let key = request.headers().get("authorization");
    let open = !request.uri().path().starts_with("/notes");
    if open || key.is_some_and(|key| key == "Bearer let-ada-in") {
        return next.run(request).await;
    }
    StatusCode::UNAUTHORIZED.into_response()
}

#[derive(Serialize, FromRow)]
struct Note {
    id: Uuid,
    owner: String,
    text: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

#[derive(Deserialize)]
struct NoteInput {
    text: String,
}

/// All of the service, on the table `notes`.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    let timeout = Duration::from_secs(2);
    Ok(Router::new()
        .route("/notes", post(create).get(list))
        .route("/notes/{id}", get(show).delete(delete))
        .route("/panic", post(async || -> StatusCode { panic!("asked for") }))
        .route("/slow", get(slow))
        .route("/echo", post(async |body: axum::body::Body| body))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(PgPool::connect(database_url).await?)
        // In the order in which they shall run, as `app.use` has it.
        .layer(from_fn(log))
        .layer(CorsLayer::permissive())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, timeout))
        .layer(from_fn(authenticate)))
}

async fn create(
    State(db): State<PgPool>,
    Json(new): Json<NoteInput>,
) -> Result<(StatusCode, Json<Note>), Failed> {
    let insert = "insert into notes (id, owner, text) values ($1, 'ada', $2) returning *";
    let insert = sqlx::query_as(insert).bind(Uuid::now_v7()).bind(new.text);
    Ok((StatusCode::CREATED, Json(insert.fetch_one(&db).await?)))
}

async fn list(State(db): State<PgPool>) -> Result<Json<Value>, Failed> {
    let notes: Vec<Note> =
        sqlx::query_as("select * from notes order by id desc").fetch_all(&db).await?;
    Ok(Json(json!({ "items": notes })))
}

async fn show(State(db): State<PgPool>, Path(id): Path<Uuid>) -> Result<Json<Note>, Failed> {
    Ok(Json(sqlx::query_as("select * from notes where id = $1").bind(id).fetch_one(&db).await?))
}

async fn delete(State(db): State<PgPool>, Path(id): Path<Uuid>) -> Result<StatusCode, Failed> {
    sqlx::query("delete from notes where id = $1").bind(id).execute(&db).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

async fn slow(Query(slow): Query<Slow>) -> Json<Value> {
    tokio::time::sleep(Duration::from_millis(slow.ms)).await;
    Json(json!({ "slept_ms": slow.ms }))
}

struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = match self.0 {
            sqlx::Error::RowNotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.0.to_string()).into_response()
    }
}
