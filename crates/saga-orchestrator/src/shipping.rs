//! Where does the parcel go? Nowhere twice.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use edge::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    database::Database,
    error::Error,
    order::{Address, Errors},
    participant::{Key, OfOrder, Plain, asked, respond},
    payment::instant,
    store::shipping,
};

/// What is asked of it to book.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `order_id` and `address`")]
pub struct Book {
    order_id: Uuid,
    address: Address,
}

/// Its calls.
pub fn router(database: Database) -> Router {
    Router::new()
        .route("/shipments", get(show))
        .route("/book", post(book))
        .route("/cancel", post(cancel))
        .with_state(database)
}

/// Why nothing is sent there, if nothing is. `XX` is nobody's code in ISO 3166.
pub fn refusal(country: &str) -> Option<&'static str> {
    (country == "XX").then_some("nothing is sent to this country")
}

async fn book(
    State(database): State<Database>,
    key: Key,
    Json(request): Json<Book>,
) -> Result<Json<Value>, Error> {
    let mut errors = Errors::default();
    request.address.check(&mut errors);
    let request = errors.or(request)?;
    let refusal = refusal(&request.address.country);
    let asked = asked(key, request.order_id, &request)?;
    let answer = database.within(async |c| shipping::book(c, &asked, refusal).await).await?;
    respond(&asked, answer)
}

async fn cancel(
    State(database): State<Database>,
    key: Key,
    Json(request): Json<Plain>,
) -> Result<Json<Value>, Error> {
    let asked = asked(key, request.order_id, &request)?;
    let answer = database.within(async |c| shipping::cancel(c, &asked).await).await?;
    respond(&asked, answer)
}

async fn show(
    State(database): State<Database>,
    OfOrder(order_id): OfOrder,
) -> Result<Json<Value>, Error> {
    let shipments = database.within(async |c| shipping::shipments(c, order_id).await).await?;
    let shipments: Vec<_> = shipments
        .iter()
        .map(|parcel| {
            json!({
                "id": parcel.id,
                "status": if parcel.cancelled_at.is_some() { "cancelled" } else { "booked" },
                "booked_at": instant(parcel.booked_at),
                "cancelled_at": parcel.cancelled_at.and_then(instant),
            })
        })
        .collect();
    Ok(Json(json!({ "order_id": order_id, "shipments": shipments })))
}
