//! The shop as one writes it in the interview: async handlers, a pool of connections, and a task for what takes long.
#![allow(clippy::unused_async, reason = "handlers are")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool, postgres::PgPoolOptions};
use time::Date;
use uuid::Uuid;

#[derive(Serialize, FromRow)]
struct Product {
    id: i64,
    name: String,
    cents: i64,
    stock: i32,
}

#[derive(Deserialize)]
struct ProductInput {
    name: String,
    cents: i64,
    stock: i32,
}

#[derive(Deserialize)]
struct OrderInput {
    product: i64,
    quantity: i32,
}

#[derive(Clone)]
struct Shop {
    db: PgPool,
    jobs: Arc<Mutex<HashMap<Uuid, Value>>>,
}

/// All of the service, on the tables `products` and `orders`.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    let db = PgPoolOptions::new().max_connections(5).connect(database_url).await?;
    Ok(Router::new()
        .route("/products/{id}", get(show).put(put))
        .route("/products/{id}/price", get(price))
        .route("/orders", post(order))
        .route("/reports/{day}", get(report).post(report_later))
        .route("/jobs/{id}", get(job))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(Shop { db, jobs: Arc::default() }))
}

async fn show(State(shop): State<Shop>, Path(id): Path<i64>) -> Result<Json<Product>, Failed> {
    let select = "select id, name, cents, stock from products where id = $1";
    Ok(Json(sqlx::query_as(select).bind(id).fetch_one(&shop.db).await?))
}

async fn put(
    State(shop): State<Shop>,
    Path(id): Path<i64>,
    Json(new): Json<ProductInput>,
) -> Result<Json<Product>, Failed> {
    let put = "insert into products (id, name, cents, stock) values ($1, $2, $3, $4)
               on conflict (id) do update set name = $2, cents = $3, stock = $4
               returning id, name, cents, stock";
    let put = sqlx::query_as(put).bind(id).bind(new.name).bind(new.cents).bind(new.stock);
    Ok(Json(put.fetch_one(&shop.db).await?))
}

async fn price(state: State<Shop>, id: Path<i64>) -> Result<Json<Value>, Failed> {
    let product = show(state, id).await?.0;
    let (mut best, mut hash) = (0, product.id.unsigned_abs() | 1);
    for rule in 0..1_000_000_u64 {
        hash = (hash ^ rule).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        if hash.is_multiple_of(1_000) {
            best = best.max(hash / 1_000 % 31);
        }
    }
    let cents = product.cents - product.cents * best.cast_signed() / 100;
    Ok(Json(json!({ "product": product.id, "cents": cents })))
}

async fn order(
    State(shop): State<Shop>,
    Json(new): Json<OrderInput>,
) -> Result<(StatusCode, Json<Value>), Failed> {
    let product = show(State(shop.clone()), Path(new.product)).await?.0;
    if product.stock < new.quantity {
        return Ok((StatusCode::CONFLICT, Json(json!({ "error": "sold out" }))));
    }
    let take = "update products set stock = stock - $2 where id = $1";
    sqlx::query(take).bind(new.product).bind(new.quantity).execute(&shop.db).await?;
    let id = Uuid::now_v7();
    let insert = "insert into orders (id, key, product, quantity) values ($1, $2, $3, $4)";
    let insert = sqlx::query(insert).bind(id).bind(id.to_string());
    insert.bind(new.product).bind(new.quantity).execute(&shop.db).await?;
    let order = json!({ "id": id, "product": new.product, "quantity": new.quantity });
    Ok((StatusCode::CREATED, Json(order)))
}

async fn report(State(shop): State<Shop>, Path(day): Path<Date>) -> Result<Json<Value>, Failed> {
    let select = "select count(*), coalesce(sum(quantity), 0)::bigint from orders
                  where (created_at at time zone 'UTC')::date = $1";
    let (orders, items): (i64, i64) = sqlx::query_as(select).bind(day).fetch_one(&shop.db).await?;
    Ok(Json(json!({ "day": day.to_string(), "orders": orders, "items": items })))
}

async fn report_later(state: State<Shop>, day: Path<Date>) -> (StatusCode, Json<Value>) {
    let (id, jobs) = (Uuid::now_v7(), Arc::clone(&state.jobs));
    tokio::spawn(async move {
        let report = report(state, day).await.map_or(Value::Null, |it| it.0);
        let done = json!({ "id": id, "state": "done", "report": report });
        jobs.lock().unwrap_or_else(PoisonError::into_inner).insert(id, done);
    });
    (StatusCode::ACCEPTED, Json(json!({ "id": id, "state": "queued" })))
}

async fn job(State(shop): State<Shop>, Path(id): Path<Uuid>) -> Json<Value> {
    let jobs = shop.jobs.lock().unwrap_or_else(PoisonError::into_inner);
    Json(jobs.get(&id).cloned().unwrap_or_else(|| json!({ "id": id, "state": "running" })))
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
