//! Whose money moves? The customer's, once; and back, once.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use edge::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    database::Database,
    error::Error,
    order::Errors,
    participant::{Key, OfOrder, Plain, asked, respond},
    store::payment,
};

/// What is asked of it to charge.
#[derive(Debug, Deserialize, Serialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `order_id`, `amount_cents` and `payment_method`"
)]
pub struct Charge {
    order_id: Uuid,
    amount_cents: i64,
    payment_method: String,
}

/// Its calls.
pub fn router(database: Database) -> Router {
    Router::new()
        .route("/payments", get(show))
        .route("/charge", post(charge))
        .route("/refund", post(refund))
        .with_state(database)
}

// ANCHOR: decline
/// Why this method of payment is not charged, if it is not: the names are those of the well-known sandboxes.
pub fn refusal(payment_method: &str) -> Option<&'static str> {
    match payment_method {
        "pm_card_visa" | "pm_card_mastercard" => None,
        "pm_card_chargeDeclined" => Some("the card was declined"),
        _ => Some("there is no such payment method"),
    }
}
// ANCHOR_END: decline

async fn charge(
    State(database): State<Database>,
    key: Key,
    Json(request): Json<Charge>,
) -> Result<Json<Value>, Error> {
    let mut errors = Errors::default();
    errors.range("amount_cents", request.amount_cents, 1, i64::MAX);
    errors.name("payment_method", &request.payment_method);
    let request = errors.or(request)?;
    let refusal = refusal(&request.payment_method);
    let asked = asked(key, request.order_id, &request)?;
    let answer = database.within(async |c| payment::charge(c, &asked, refusal).await).await?;
    respond(&asked, answer)
}

async fn refund(
    State(database): State<Database>,
    key: Key,
    Json(request): Json<Plain>,
) -> Result<Json<Value>, Error> {
    let asked = asked(key, request.order_id, &request)?;
    let answer = database.within(async |c| payment::refund(c, &asked).await).await?;
    respond(&asked, answer)
}

/// An order that this service has never heard of has no charges and no refunds.
async fn show(
    State(database): State<Database>,
    OfOrder(order_id): OfOrder,
) -> Result<Json<Value>, Error> {
    let entries = database.within(async |c| payment::entries(c, order_id).await).await?;
    let of = |kind: &str| -> Vec<Value> {
        let entries = entries.iter().filter(|entry| entry.kind == kind);
        entries.map(|e| json!({ "amount_cents": e.amount_cents, "at": instant(e.at) })).collect()
    };
    Ok(Json(json!({ "order_id": order_id, "charges": of("charge"), "refunds": of("refund") })))
}

/// As RFC 3339 has it, in UTC.
pub fn instant(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}
