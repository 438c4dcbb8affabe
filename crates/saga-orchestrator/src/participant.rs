//! What do inventory, payment and shipping do when they are called? Each call names its order and bears a key, is done
//! at most once, and gets the same answer for ever.

use axum::{
    Router,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    routing::{get, post},
};
use edge::{Json, header::only};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    error::Error,
    order::{Address, Item, MAX_AMOUNT, MAX_QUANTITY, between, is_name, items, name},
    saga::{Call, Participant},
    store::{
        Database,
        calls::{self, Answer, Asked},
        inventory,
    },
};

/// The databases of the participants that run here, in the order of [`Participant::ALL`].
pub type Databases = [Option<Database>; 3];

/// The participants, each under its name. One that does not run here is not found.
pub fn router(databases: &Databases) -> Router {
    Router::new()
        .route("/inventory/stock/{sku}", get(show_stock).put(put_stock))
        .route("/inventory/reserve", post(|d, key, it| step::<Reserve>(Call::Reserve, d, key, it)))
        .route("/inventory/release", post(|d, key, it| step::<Plain>(Call::Release, d, key, it)))
        .route("/inventory/sell", post(|d, key, it| step::<Plain>(Call::Sell, d, key, it)))
        .route("/payment/charge", post(|d, key, it| step::<Charge>(Call::Charge, d, key, it)))
        .route("/payment/refund", post(|d, key, it| step::<Plain>(Call::Refund, d, key, it)))
        .route("/payment/effects/{order_id}", get(|d, id| effects(Participant::Payment, d, id)))
        .route("/shipping/book", post(|d, key, it| step::<Book>(Call::Book, d, key, it)))
        .route("/shipping/cancel", post(|d, key, it| step::<Plain>(Call::Cancel, d, key, it)))
        .route("/shipping/effects/{order_id}", get(|d, id| effects(Participant::Shipping, d, id)))
        .with_state(databases.clone())
}

fn of(databases: &Databases, participant: Participant) -> Result<&Database, Error> {
    databases[participant as usize].as_ref().ok_or(Error::NotFound)
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `order_id` and `items`")]
struct Reserve {
    order_id: Uuid,
    #[serde(deserialize_with = "items")]
    items: Vec<Item>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with the fields of a charge")]
struct Charge {
    order_id: Uuid,
    #[serde(deserialize_with = "between::<_, 1, MAX_AMOUNT>")]
    amount_cents: i64,
    #[serde(deserialize_with = "name")]
    payment_method: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `order_id` and `address`")]
struct Book {
    order_id: Uuid,
    address: Address,
}

/// The other calls: the order says it all.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `order_id`")]
struct Plain {
    order_id: Uuid,
}

/// Any of the calls that change something.
async fn step<T: DeserializeOwned + Serialize>(
    call: Call,
    State(databases): State<Databases>,
    Key(key): Key,
    Json(request): Json<T>,
) -> Result<Json<Value>, Error> {
    let request = serde_json::to_value(request).map_err(Error::internal)?;
    // It has one, as each of the types above has.
    let order_id = Uuid::deserialize(&request["order_id"]).map_err(Error::internal)?;
    let asked = Asked { order_id, key, request };
    let database = of(&databases, call.participant())?;
    // The answer names the order, so that the caller can see that it is theirs.
    match database.within(async |c| perform(c, call, &asked).await).await? {
        Answer::Done => Ok(Json(json!({ "order_id": order_id, "outcome": "done" }))),
        Answer::Refused(reason) => Err(Error::Refused { order_id, reason }),
        Answer::KeyReused => Err(Error::KeyReused),
    }
}

/// Does what it is asked, once.
pub async fn perform(
    connection: &mut PgConnection,
    call: Call,
    asked: &Asked,
) -> sqlx::Result<Answer> {
    match call {
        Call::Reserve => inventory::reserve(connection, asked).await,
        Call::Release => inventory::release(connection, asked).await,
        Call::Sell => inventory::sell(connection, asked).await,
        Call::Charge | Call::Book => {
            calls::act(connection, call, asked, refusal(&asked.request)).await
        }
        Call::Refund | Call::Cancel => calls::undo(connection, call, asked).await,
    }
}

/// Why this is not charged or booked, if it is not. The names are those of the well-known sandboxes; `XX` is nobody's
/// code in ISO 3166.
fn refusal(request: &Value) -> Option<&'static str> {
    match (request["payment_method"].as_str(), request["address"]["country"].as_str()) {
        (Some("pm_card_visa" | "pm_card_mastercard"), _) => None,
        (Some("pm_card_chargeDeclined"), _) => Some("the card was declined"),
        (Some(_), _) => Some("there is no such payment method"),
        (None, country) => (country == Some("XX")).then_some("nothing is sent to this country"),
    }
}

/// What was done for an order. One that nobody has had no effects.
async fn effects(
    participant: Participant,
    State(databases): State<Databases>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    let (id, database) = (order_id(&id)?, of(&databases, participant)?);
    let effects = database.within(async |c| calls::effects(c, id).await).await?;
    Ok(Json(json!({ "order_id": id, "effects": effects })))
}

/// An id in the path. A string that cannot be one gets 404.
pub fn order_id(text: &str) -> Result<Uuid, Error> {
    text.parse().map_err(|_| Error::NotFound)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `quantity`")]
struct Quantity {
    #[serde(deserialize_with = "between::<_, 0, MAX_QUANTITY>")]
    quantity: i64,
}

async fn put_stock(
    State(databases): State<Databases>,
    Path(sku): Path<String>,
    Json(Quantity { quantity }): Json<Quantity>,
) -> Result<Json<Value>, Error> {
    if !is_name(&sku) {
        return Err(Error::invalid("sku", "cannot be a sku"));
    }
    let database = of(&databases, Participant::Inventory)?;
    Ok(Json(database.within(async |c| inventory::put(c, &sku, quantity).await).await?))
}

async fn show_stock(
    State(databases): State<Databases>,
    Path(sku): Path<String>,
) -> Result<Json<Value>, Error> {
    // A string that cannot be a sku gets 404, without asking the database.
    let sku = Some(sku).filter(|sku| is_name(sku)).ok_or(Error::NotFound)?;
    let database = of(&databases, Participant::Inventory)?;
    let stock = database.within(async |c| inventory::find(c, &sku).await).await?;
    stock.map(Json).ok_or(Error::NotFound)
}

/// The `Idempotency-Key` of a request.
#[derive(Clone, Debug)]
pub struct Key(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let key = only(&parts.headers, "idempotency-key").ok_or(Error::NoKey)?;
        if (1..=128).contains(&key.len()) { Ok(Self(key.to_owned())) } else { Err(Error::NoKey) }
    }
}
