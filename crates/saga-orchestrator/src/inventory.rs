//! Who gets the last item? Whoever the stock's row lets reserve it: a reserved item is not sold again.

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use edge::Json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    database::Database,
    error::Error,
    order::{Errors, Item, MAX_QUANTITY, is_name},
    participant::{Key, Plain, asked, respond},
    store::inventory::{self, Stock},
};

/// What is asked of it to reserve.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `order_id` and `items`")]
pub struct Reserve {
    order_id: Uuid,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `quantity`")]
struct Quantity {
    quantity: i64,
}

/// Its calls.
pub fn router(database: Database) -> Router {
    Router::new()
        .route("/stock/{sku}", get(show).put(put))
        .route("/reserve", post(reserve))
        .route("/release", post(release))
        .route("/sell", post(sell))
        .with_state(database)
}

async fn put(
    State(database): State<Database>,
    sku: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Json(Quantity { quantity }): Json<Quantity>,
) -> Result<Json<Stock>, Error> {
    let sku = sku.map_or_else(|_| String::new(), |Path(sku)| sku);
    let mut errors = Errors::default();
    errors.name("sku", &sku);
    errors.range("quantity", quantity, 0, MAX_QUANTITY);
    let sku = errors.or(sku)?;
    Ok(Json(database.within(async |c| inventory::put(c, &sku, quantity).await).await?))
}

async fn show(
    State(database): State<Database>,
    sku: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Stock>, Error> {
    // What cannot be a sku is simply not found.
    let sku = sku.ok().map(|Path(sku)| sku).filter(|sku| is_name(sku)).ok_or(Error::NotFound)?;
    let stock = database.within(async |c| inventory::find(c, &sku).await).await?;
    stock.map(Json).ok_or(Error::NotFound)
}

async fn reserve(
    State(database): State<Database>,
    key: Key,
    Json(request): Json<Reserve>,
) -> Result<Json<Value>, Error> {
    let mut errors = Errors::default();
    errors.items(&request.items);
    let request = errors.or(request)?;
    let asked = asked(key, request.order_id, &request)?;
    let answer = database.within(async |c| inventory::reserve(c, &asked).await).await?;
    respond(&asked, answer)
}

async fn release(
    State(database): State<Database>,
    key: Key,
    Json(request): Json<Plain>,
) -> Result<Json<Value>, Error> {
    let asked = asked(key, request.order_id, &request)?;
    let answer = database.within(async |c| inventory::release(c, &asked).await).await?;
    respond(&asked, answer)
}

async fn sell(
    State(database): State<Database>,
    key: Key,
    Json(request): Json<Plain>,
) -> Result<Json<Value>, Error> {
    let asked = asked(key, request.order_id, &request)?;
    let answer = database.within(async |c| inventory::sell(c, &asked).await).await?;
    respond(&asked, answer)
}
