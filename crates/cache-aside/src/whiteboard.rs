//! The answer as one writes it in an interview: look into Redis, else query and `SET EX 3600`; delete on update.

use std::collections::HashMap;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use redis::{AsyncCommands, aio::MultiplexedConnection, pipe};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgPool;

#[derive(Clone)]
struct App {
    database: PgPool,
    redis: MultiplexedConnection,
    /// What the keys begin with: other programs use this Redis too.
    prefix: String,
}

#[derive(Deserialize)]
struct Body {
    name: String,
    email: String,
}

/// All of the service, on this database and this Redis.
pub async fn router(database: &str, redis: &str) -> anyhow::Result<Router> {
    let database = PgPool::connect(database).await?;
    let prefix = "select 'worked-answers:whiteboard:' || current_database()";
    let prefix = sqlx::query_scalar(prefix).fetch_one(&database).await?;
    let redis = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
    Ok(Router::new()
        .route("/users", post(create).get(show_many))
        .route("/users/{id}", get(show).put(update).delete(delete))
        .route("/healthz", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(async || Json(json!({ "status": "ready", "redis": "believed" }))))
        .with_state(App { database, redis, prefix }))
}

/// Something went wrong, which is 500; or it is a problem of the client's.
enum Error {
    Problem(StatusCode),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Problem(status) => status,
            Self::Other(error) => {
                tracing::error!("{error:#}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let title = status.canonical_reason();
        let problem = json!({ "type": "about:blank", "title": title, "status": status.as_u16() });
        (status, [("content-type", "application/problem+json")], Json(problem)).into_response()
    }
}

const NOT_FOUND: Error = Error::Problem(StatusCode::NOT_FOUND);

impl App {
    fn key(&self, id: i64) -> String {
        format!("{}:user:{id}", self.prefix)
    }

    /// Cache-aside: Redis, else PostgreSQL, and then into Redis. And what `Cache-Status` says of it.
    async fn find(&self, id: i64) -> Result<Option<(Value, String)>, Error> {
        let (mut redis, key) = (self.redis.clone(), self.key(id));
        let (cached, ttl): (Option<String>, i64) =
            pipe().get(&key).ttl(&key).query_async(&mut redis).await?;
        if let Some(cached) = cached {
            return Ok(Some((serde_json::from_str(&cached)?, format!("redis; hit; ttl={ttl}"))));
        }
        let select = "select to_jsonb(users) from users where id = $1";
        let user: Option<Value> =
            sqlx::query_scalar(select).bind(id).fetch_optional(&self.database).await?;
        let Some(user) = user else { return Ok(None) };
        let () = redis.set_ex(&key, user.to_string(), 3_600).await?;
        Ok(Some((user, "redis; fwd=miss".to_owned())))
    }
}

async fn create(State(app): State<App>, Json(body): Json<Body>) -> Result<Response, Error> {
    let insert = "insert into users (name, email, email_key) values ($1, $2, lower($2)) \
                  on conflict do nothing returning to_jsonb(users)";
    let insert = sqlx::query_scalar(insert).bind(body.name).bind(body.email);
    let user: Option<Value> = insert.fetch_optional(&app.database).await?;
    let user = user.ok_or(Error::Problem(StatusCode::CONFLICT))?;
    let location = [("location", format!("/users/{}", user["id"]))];
    Ok((StatusCode::CREATED, location, Json(user)).into_response())
}

async fn show(State(app): State<App>, Path(id): Path<i64>) -> Result<Response, Error> {
    let (user, status) = app.find(id).await?.ok_or(NOT_FOUND)?;
    Ok(([("cache-status", status)], Json(user)).into_response())
}

async fn show_many(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Error> {
    let unprocessable = Error::Problem(StatusCode::UNPROCESSABLE_ENTITY);
    let ids = query.get("ids").ok_or(unprocessable)?;
    let (mut users, mut missing) = (Vec::new(), Vec::new());
    for id in ids.split(',') {
        let id = id.parse()?;
        match app.find(id).await? {
            Some((user, _)) => users.push(user),
            None => missing.push(id),
        }
    }
    Ok(Json(json!({ "users": users, "missing": missing })).into_response())
}

async fn update(
    State(app): State<App>,
    Path(id): Path<i64>,
    Json(body): Json<Body>,
) -> Result<Json<Value>, Error> {
    let update = "update users set name = $2, email = $3, email_key = lower($3), \
                  updated_at = now() where id = $1 returning to_jsonb(users)";
    let update = sqlx::query_scalar(update).bind(id).bind(body.name).bind(body.email);
    let user: Option<Value> = update.fetch_optional(&app.database).await?;
    let () = app.redis.clone().del(app.key(id)).await?;
    Ok(Json(user.ok_or(NOT_FOUND)?))
}

async fn delete(State(app): State<App>, Path(id): Path<i64>) -> Result<StatusCode, Error> {
    let deleted =
        sqlx::query("delete from users where id = $1").bind(id).execute(&app.database).await?;
    let () = app.redis.clone().del(app.key(id)).await?;
    if deleted.rows_affected() == 0 { Err(NOT_FOUND) } else { Ok(StatusCode::NO_CONTENT) }
}
