//! The saga as one writes it in the interview: call, call, call, and on an error the undo calls.

use std::collections::HashMap;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

const TABLES: &str = "
    create table if not exists whiteboard_orders (id uuid primary key, body jsonb);
    create table if not exists whiteboard_stock (
        sku text primary key, available bigint, reserved bigint default 0, sold bigint default 0);
    create table if not exists whiteboard_effects (order_id uuid, kind text, request jsonb);
";

/// All four services, each at its own path.
pub async fn router(database_url: &str) -> anyhow::Result<Router> {
    let pool = PgPool::connect(database_url).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    Ok(Router::new()
        .route("/orders", post(order))
        .route("/orders/{id}", get(show))
        .route("/inventory/stock/{sku}", get(stock).put(put_stock))
        .route("/inventory/reserve", post(reserve))
        .route("/inventory/release", post(|db, body| shift(db, body, "available", "reserved")))
        .route("/inventory/sell", post(|db, body| shift(db, body, "sold", "reserved")))
        .route("/payment/{kind}", post(effect))
        .route("/shipping/{kind}", post(effect))
        .route("/payment/effects", get(effects))
        .route("/shipping/effects", get(effects))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(pool))
}

/// The saga.
async fn order(
    State(pool): State<PgPool>,
    headers: HeaderMap,
    Json(mut order): Json<Value>,
) -> Result<Response, Failed> {
    let (id, client) = (Uuid::now_v7(), Client::new());
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    order["order_id"] = json!(id);
    let call = async |path: &str| {
        client.post(format!("http://{host}/{path}")).json(&order).send().await?.error_for_status()
    };
    let (mut steps, mut undo, mut reason) = (Vec::new(), Vec::new(), None);
    for (action, compensation) in [
        ("inventory/reserve", "inventory/release"),
        ("payment/charge", "payment/refund"),
        ("shipping/book", "shipping/cancel"),
        ("inventory/sell", ""),
    ] {
        match call(action).await {
            Ok(_) => {
                let name = action.split('/').nth(1);
                let at = OffsetDateTime::now_utc().format(&Rfc3339)?;
                steps.push(json!({ "name": name, "status": "done", "attempts": 1, "at": at }));
                undo.push(compensation);
            }
            Err(error) => {
                reason = Some(error.to_string());
                for compensation in undo.iter().rev() {
                    call(compensation).await?;
                }
                break;
            }
        }
    }
    let status = if reason.is_none() { "confirmed" } else { "cancelled" };
    let body = json!({ "id": id, "status": status, "reason": reason, "steps": steps });
    let insert = "insert into whiteboard_orders (id, body) values ($1, $2)";
    sqlx::query(insert).bind(id).bind(&body).execute(&pool).await?;
    Ok((StatusCode::ACCEPTED, [(LOCATION, format!("/orders/{id}"))], Json(body)).into_response())
}

async fn show(State(pool): State<PgPool>, Path(id): Path<Uuid>) -> Result<Json<Value>, Failed> {
    let select = sqlx::query_scalar("select body from whiteboard_orders where id = $1");
    Ok(Json(select.bind(id).fetch_one(&pool).await?))
}

async fn stock(State(pool): State<PgPool>, Path(sku): Path<String>) -> Result<Json<Value>, Failed> {
    let select = "select to_jsonb(s) from whiteboard_stock s where sku = $1";
    Ok(Json(sqlx::query_scalar(select).bind(sku).fetch_one(&pool).await?))
}

async fn put_stock(
    State(pool): State<PgPool>,
    Path(sku): Path<String>,
    Json(body): Json<Value>,
) -> Result<Json<Value>, Failed> {
    let put = "insert into whiteboard_stock (sku, available) values ($1, $2) on conflict (sku) \
               do update set available = $2 returning to_jsonb(whiteboard_stock)";
    let put = sqlx::query_scalar(put).bind(sku).bind(body["quantity"].as_i64());
    Ok(Json(put.fetch_one(&pool).await?))
}

async fn reserve(State(pool): State<PgPool>, Json(body): Json<Value>) -> Result<Response, Failed> {
    for item in body["items"].as_array().into_iter().flatten() {
        let select = "select available from whiteboard_stock where sku = $1";
        let available: Option<i64> =
            sqlx::query_scalar(select).bind(item["sku"].as_str()).fetch_optional(&pool).await?;
        if available.unwrap_or(0) < item["quantity"].as_i64().unwrap_or(0) {
            return Ok((StatusCode::CONFLICT, "out of stock").into_response());
        }
    }
    shift(State(pool), Json(body), "reserved", "available").await
}

/// Moves the items of an order from one column to another.
async fn shift(
    State(pool): State<PgPool>,
    Json(body): Json<Value>,
    to: &str,
    from: &str,
) -> Result<Response, Failed> {
    let update = format!("{to} = {to} + $2, {from} = {from} - $2 where sku = $1");
    let update = format!("update whiteboard_stock set {update}");
    for item in body["items"].as_array().into_iter().flatten() {
        let update = sqlx::query(AssertSqlSafe(update.clone())).bind(item["sku"].as_str());
        update.bind(item["quantity"].as_i64()).execute(&pool).await?;
    }
    Ok(Json(json!({ "order_id": body["order_id"], "outcome": "done" })).into_response())
}

/// Charge, refund, book or cancel.
async fn effect(
    State(pool): State<PgPool>,
    Path(kind): Path<String>,
    Json(body): Json<Value>,
) -> Result<Response, Failed> {
    let is_declined = kind == "charge" && body["payment_method"] != "pm_card_visa";
    if is_declined || kind == "book" && body["address"]["country"] == "XX" {
        return Ok((StatusCode::CONFLICT, "refused").into_response());
    }
    let insert = "insert into whiteboard_effects (order_id, kind, request) \
                  values (($1 ->> 'order_id')::uuid, $2, $1)";
    sqlx::query(insert).bind(&body).bind(kind).execute(&pool).await?;
    Ok(Json(json!({ "order_id": body["order_id"], "outcome": "done" })).into_response())
}

async fn effects(
    State(pool): State<PgPool>,
    Query(query): Query<HashMap<String, Uuid>>,
) -> Result<Json<Value>, Failed> {
    let select = "select to_jsonb(e) from whiteboard_effects e where order_id = $1";
    let effects = sqlx::query_scalar(select).bind(query.get("order_id"));
    Ok(Json(json!({ "effects": effects.fetch_all(&pool).await? as Vec<Value> })))
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
