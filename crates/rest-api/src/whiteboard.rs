//! The users as one writes them in the interview: five methods, five statements.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Serialize, FromRow)]
struct User {
    id: Uuid,
    name: String,
    email: String,
    tags: Vec<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    email: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// The fields that are there replace those of the user.
#[derive(Deserialize)]
struct Change {
    name: Option<String>,
    email: Option<String>,
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Page {
    offset: Option<i64>,
    limit: Option<i64>,
}

#[derive(Serialize, FromRow)]
struct Order {
    id: Uuid,
    item: String,
    quantity: i32,
    state: String,
}

#[derive(Deserialize)]
struct OrderInput {
    item: String,
    quantity: i32,
}

/// All of the service, on the tables `users` and `orders`.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    Ok(Router::new()
        .route("/users", post(create).get(list))
        .route("/users/{id}", get(show).put(replace).patch(change).delete(delete))
        .route("/users/{id}/orders", post(order))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(PgPool::connect(database_url).await?))
}

async fn create(State(db): State<PgPool>, Json(new): Json<Input>) -> Result<Response, Failed> {
    let insert = "insert into users (id, name, email, email_key, tags) values ($1, $2, $3, $3, $4) returning *";
    let insert = sqlx::query_as(insert).bind(Uuid::now_v7()).bind(new.name).bind(new.email);
    let user: User = insert.bind(new.tags).fetch_one(&db).await?;
    Ok((StatusCode::CREATED, [("location", format!("/users/{}", user.id))], Json(user))
        .into_response())
}

async fn list(State(db): State<PgPool>, Query(page): Query<Page>) -> Result<Json<Value>, Failed> {
    let select = "select * from users order by created_at limit $1 offset $2";
    let select =
        sqlx::query_as(select).bind(page.limit.unwrap_or(20)).bind(page.offset.unwrap_or(0));
    let items: Vec<User> = select.fetch_all(&db).await?;
    Ok(Json(json!({ "items": items })))
}

async fn show(State(db): State<PgPool>, Path(id): Path<Uuid>) -> Result<Json<User>, Failed> {
    Ok(Json(sqlx::query_as("select * from users where id = $1").bind(id).fetch_one(&db).await?))
}

async fn replace(
    State(db): State<PgPool>,
    Path(id): Path<Uuid>,
    Json(new): Json<Input>,
) -> Result<Json<User>, Failed> {
    let update = "update users set name = $2, email = $3, email_key = $3, tags = $4 where id = $1 returning *";
    let update = sqlx::query_as(update).bind(id).bind(new.name).bind(new.email).bind(new.tags);
    Ok(Json(update.fetch_one(&db).await?))
}

async fn change(
    State(db): State<PgPool>,
    Path(id): Path<Uuid>,
    Json(change): Json<Change>,
) -> Result<Json<User>, Failed> {
    let user = show(State(db.clone()), Path(id)).await?.0;
    let name = change.name.unwrap_or(user.name);
    let email = change.email.unwrap_or(user.email);
    let tags = change.tags.unwrap_or(user.tags);
    replace(State(db), Path(id), Json(Input { name, email, tags })).await
}

async fn delete(State(db): State<PgPool>, Path(id): Path<Uuid>) -> Result<StatusCode, Failed> {
    let gone = sqlx::query("delete from users where id = $1").bind(id).execute(&db).await?;
    Ok(if gone.rows_affected() == 0 { StatusCode::NOT_FOUND } else { StatusCode::NO_CONTENT })
}

async fn order(
    State(db): State<PgPool>,
    Path(id): Path<Uuid>,
    Json(new): Json<OrderInput>,
) -> Result<(StatusCode, Json<Order>), Failed> {
    let insert =
        "insert into orders (id, user_id, item, quantity) values ($1, $2, $3, $4) returning *";
    let insert = sqlx::query_as(insert).bind(Uuid::now_v7()).bind(id).bind(new.item);
    Ok((StatusCode::CREATED, Json(insert.bind(new.quantity).fetch_one(&db).await?)))
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
