//! The saga as one writes it in the interview: call, call, call, and on an error the undo calls.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

type Answer = Result<Response, Failed>;
const TABLES: &str = "
    create table if not exists whiteboard_orders (id uuid primary key, body jsonb);
    create table if not exists whiteboard_stock (
        sku text primary key, available bigint, reserved bigint default 0, sold bigint default 0);
    create table if not exists whiteboard_effects (order_id uuid, kind text, request jsonb);
";
const RESERVE: &str = "available = available - $2, reserved = reserved + $2";
const RELEASE: &str = "available = available + $2, reserved = reserved - $2";
const SELL: &str = "sold = sold + $2, reserved = reserved - $2";

/// The saga and its three services, each at its own path.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    let pool = PgPool::connect(database_url).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    Ok(Router::new()
        .route("/orders", post(order))
        .route("/orders/{id}", get(show))
        .route("/inventory/stock/{sku}", get(stock).put(put_stock))
        .route("/inventory/reserve", post(reserve))
        .route("/inventory/release", post(|db, body| shift(db, body, RELEASE)))
        .route("/inventory/sell", post(|db, body| shift(db, body, SELL)))
        .route("/payment/{kind}", post(effect))
        .route("/shipping/{kind}", post(effect))
        .route("/payment/effects/{order_id}", get(effects))
        .route("/shipping/effects/{order_id}", get(effects))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(pool))
}

/// The saga.
async fn order(db: State<PgPool>, headers: HeaderMap, Json(mut order): Json<Value>) -> Answer {
    let (id, client) = (Uuid::now_v7(), Client::new());
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    order["order_id"] = json!(id);
    let call = async |path: &str| {
        client.post(format!("http://{host}/{path}")).json(&order).send().await?.error_for_status()
    };
    let (mut steps, mut undo, mut reason) = (vec![], Vec::<&str>::new(), None);
    for (action, compensation) in [
        ("inventory/reserve", "inventory/release"),
        ("payment/charge", "payment/refund"),
        ("shipping/book", "shipping/cancel"),
        ("inventory/sell", ""),
    ] {
        if let Err(error) = call(action).await {
            reason = Some(error.to_string());
            for compensation in undo.iter().rev() {
                call(compensation).await?;
            }
            break;
        }
        undo.push(compensation);
        let (name, at) = (action.split('/').nth(1), OffsetDateTime::now_utc().format(&Rfc3339)?);
        steps.push(json!({ "name": name, "status": "done", "attempts": 1, "at": at }));
    }
    let status = if reason.is_none() { "confirmed" } else { "cancelled" };
    let body = json!({ "id": id, "status": status, "reason": reason, "steps": steps });
    let insert = "insert into whiteboard_orders values ($1, $2)";
    sqlx::query(insert).bind(id).bind(&body).execute(&*db).await?;
    Ok((StatusCode::ACCEPTED, [(LOCATION, format!("/orders/{id}"))], Json(body)).into_response())
}

async fn show(db: State<PgPool>, Path(id): Path<Uuid>) -> Answer {
    let select = "select body from whiteboard_orders where id = $1";
    let order: Value = sqlx::query_scalar(select).bind(id).fetch_one(&*db).await?;
    Ok(Json(order).into_response())
}

async fn stock(db: State<PgPool>, Path(sku): Path<String>) -> Answer {
    let select = "select to_jsonb(s) from whiteboard_stock s where sku = $1";
    let stock: Value = sqlx::query_scalar(select).bind(sku).fetch_one(&*db).await?;
    Ok(Json(stock).into_response())
}

async fn put_stock(db: State<PgPool>, sku: Path<String>, body: Json<Value>) -> Answer {
    let put = "insert into whiteboard_stock (sku, available) values ($1, $2) \
               on conflict (sku) do update set available = $2";
    sqlx::query(put).bind(&*sku).bind(body["quantity"].as_i64()).execute(&*db).await?;
    stock(db, sku).await
}

async fn reserve(db: State<PgPool>, body: Json<Value>) -> Answer {
    for item in body["items"].as_array().into_iter().flatten() {
        let select = "select available >= $2 from whiteboard_stock where sku = $1";
        let select = sqlx::query_scalar(select).bind(item["sku"].as_str());
        let is_enough = select.bind(item["quantity"].as_i64()).fetch_optional(&*db).await?;
        if is_enough != Some(true) {
            return Ok((StatusCode::CONFLICT, "out of stock").into_response());
        }
    }
    shift(db, body, RESERVE).await
}

/// Moves the items of an order from one column to another.
async fn shift(db: State<PgPool>, body: Json<Value>, set: &str) -> Answer {
    for item in body["items"].as_array().into_iter().flatten() {
        let update = AssertSqlSafe(format!("update whiteboard_stock set {set} where sku = $1"));
        let update = sqlx::query(update).bind(item["sku"].as_str());
        update.bind(item["quantity"].as_i64()).execute(&*db).await?;
    }
    Ok(Json(json!({ "order_id": body["order_id"], "outcome": "done" })).into_response())
}

/// Charge, refund, book or cancel.
async fn effect(db: State<PgPool>, Path(kind): Path<String>, body: Json<Value>) -> Answer {
    let is_declined = kind == "charge" && body["payment_method"] != "pm_card_visa";
    if is_declined || kind == "book" && body["address"]["country"] == "XX" {
        return Ok((StatusCode::CONFLICT, "refused").into_response());
    }
    let insert = "insert into whiteboard_effects values (($1 ->> 'order_id')::uuid, $2, $1)";
    sqlx::query(insert).bind(&*body).bind(kind).execute(&*db).await?;
    Ok(Json(json!({ "order_id": body["order_id"], "outcome": "done" })).into_response())
}

async fn effects(db: State<PgPool>, Path(id): Path<Uuid>) -> Answer {
    let select = "select to_jsonb(e) from whiteboard_effects e where order_id = $1";
    let effects: Vec<Value> = sqlx::query_scalar(select).bind(id).fetch_all(&*db).await?;
    Ok(Json(json!({ "effects": effects })).into_response())
}

struct Failed(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}
