//! What does the service say, and to whom? The table of calls as handlers, which do not know how the shop is kept.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::header::LOCATION;
use axum::http::{StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, http::HeaderMap};
use edge::{Json, frame::framed, header::only};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::entity::{Fields, Kind, is_id};
use crate::error::{Error, Result};
use crate::order::{Order, Request};
use crate::query::{By, Search, Session};
use crate::schema::as_of;
use crate::store::Store;

/// For a whole request and its answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Many times the largest customer.
const MAX_BODY: usize = 64 * 1_024;

/// Where the handlers find everything, and how they answer.
type Shop = State<Store>;
type Reply<T = Value> = Result<Json<T>>;
type Shown = Result<([(&'static str, &'static str); 1], Json<Value>)>;

/// All of the service.
pub fn router(store: Store) -> Router {
    let calls = Router::new()
        .route("/customers/{id}", get(show).put(put).patch(patch).delete(delete))
        .route("/customers/{id}/deposits", post(add))
        .route("/customers/{id}/orders", get(orders))
        .route("/products", get(search))
        .route("/products/{id}", get(show).put(put))
        .route("/products/{id}/deliveries", post(add))
        .route("/orders", post(order))
        .route("/feed/{id}", get(feed))
        .route("/reports/revenue", get(revenue))
        .route("/sessions/{id}", get(session).put(put_session))
        .route("/consistency", get(consistency))
        .route("/readyz", get(ready));
    framed(calls, TIMEOUT, MAX_BODY).with_state(store)
}

/// A customer or a product in the path, or what has an id like theirs. A string that cannot be an id is not found.
struct Thing(Kind, String);

impl<S: Send + Sync> FromRequestParts<S> for Thing {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().map(|it| it.0).filter(|it| is_id(it)).ok_or(Error::NOT_FOUND)?;
        let is_product = parts.uri.path().starts_with("/products/");
        Ok(Self(if is_product { Kind::Product } else { Kind::Customer }, id))
    }
}

/// With its id, as clients see it.
fn named(id: &str, mut fields: Fields) -> Value {
    fields.insert("id".to_owned(), json!(id));
    fields.into()
}

/// A reader that knows only an old version names it. A client that has just written names the position of its write.
async fn show(shop: Shop, Thing(kind, id): Thing, query: RawQuery, headers: HeaderMap) -> Shown {
    let version = match query.0.as_deref() {
        Some("as_of_schema=1") if kind == Kind::Customer => 1,
        None | Some("as_of_schema=1" | "as_of_schema=2") => 2,
        _ => return Err(Error::invalid("as_of_schema", "must be 1 or 2")),
    };
    let (fields, server) = shop.get(kind, &id, only(&headers, "read-after")).await?;
    Ok(([("served-by", server)], Json(named(&id, as_of(version, fields)))))
}

/// Replaces all that a client may decide.
async fn put(shop: Shop, thing: Thing, Json(fields): Json<Fields>) -> Result<Response> {
    let new = thing.0.checked(fields)?;
    write(&shop, &thing, |_| Ok(new.clone())).await
}

/// Replaces what the body names, and takes away what is null in it (RFC 7396). The result may be as large as the body of
/// a PUT, so that many small changes cannot make it larger without end.
async fn patch(shop: Shop, thing: Thing, Json(changes): Json<Value>) -> Result<Response> {
    // A null would be read as an object without fields.
    if !changes.is_object() {
        return Err(Error::invalid("body", "must be an object"));
    }
    let changed = |old: Option<Fields>| {
        let mut fields = Value::from(old.ok_or(Error::NOT_FOUND)?);
        json_patch::merge(&mut fields, &json!({ thing.0.amount(): null }));
        json_patch::merge(&mut fields, &changes);
        let fits = Some(fields).filter(|it| it.to_string().len() <= MAX_BODY);
        let fits = fits.ok_or_else(|| Error::invalid("body", "makes this too large"))?;
        thing.0.checked(serde_json::from_value(fits)?)
    };
    write(&shop, &thing, changed).await
}

/// Where in the log the write is, for a client that reads from a replica next. If this cannot be read, the answer goes
/// without it: the write is done, and after an error the client would order again.
async fn written_at(shop: &Store) -> Option<[(&'static str, String); 1]> {
    shop.position().await.unwrap_or_default().map(|it| [("written-at", it)])
}

async fn write(
    shop: &Store,
    Thing(kind, id): &Thing,
    decide: impl Fn(Option<Fields>) -> Result<Fields>,
) -> Result<Response> {
    let (fields, is_new) = shop.replace(*kind, id, decide).await?;
    let location = is_new.then(|| [(LOCATION, format!("/{}s/{id}", kind.name()))]);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, location, written_at(shop).await, Json(named(id, fields))).into_response())
}

async fn delete(shop: Shop, Thing(_, id): Thing) -> Result<Response> {
    shop.delete(&id).await?;
    Ok((StatusCode::NO_CONTENT, written_at(&shop).await, ()).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `amount`")]
struct Added {
    amount: i64,
}

/// Cents for a customer, or pieces of a product.
async fn add(shop: Shop, Thing(kind, id): Thing, Json(it): Json<Added>) -> Result<Response> {
    if !(1..=1_000_000_000_000).contains(&it.amount) {
        return Err(Error::invalid("amount", "must be 1 to 1000000000000"));
    }
    let amount = shop.add(kind, &id, it.amount).await?;
    Ok((written_at(&shop).await, Json(json!({ kind.amount(): amount }))).into_response())
}

async fn search(shop: Shop, query: RawQuery) -> Reply {
    let search = Search::parse(&query.0.unwrap_or_default())?;
    let found = shop.search(&search).await?.into_iter().map(|(id, it)| named(&id, it));
    Ok(Json(json!({ "items": found.collect::<Vec<_>>() })))
}

async fn order(shop: Shop, Json(request): Json<Request>) -> Result<Response> {
    let order = shop.place(&request.parse()?).await?;
    let location = [(LOCATION, format!("/customers/{}/orders", order.customer))];
    Ok((StatusCode::CREATED, location, written_at(&shop).await, Json(order)).into_response())
}

async fn orders(shop: Shop, Thing(_, id): Thing) -> Reply {
    Ok(Json(json!({ "items": shop.orders_of(&id).await? })))
}

/// What a customer did lately, the newest first.
async fn feed(shop: Shop, Thing(_, id): Thing) -> Reply {
    let line = |it: Order| json!({ "at": json!(it)["ordered_at"], "total_cents": it.total_cents });
    let items: Vec<_> = shop.orders_of(&id).await?.into_iter().map(line).collect();
    Ok(Json(json!({ "items": items })))
}

async fn revenue(shop: Shop, query: RawQuery) -> Reply {
    Ok(Json(json!({ "rows": shop.revenue(By::parse(&query.0.unwrap_or_default())?).await? })))
}

async fn put_session(shop: Shop, Thing(_, id): Thing, Json(it): Json<Session>) -> Reply<Session> {
    let session = it.parse()?;
    shop.put_session(&id, &session).await.map(|()| Json(session))
}

async fn session(shop: Shop, Thing(_, id): Thing) -> Reply<Session> {
    shop.session(&id).await.map(Json)
}

/// What this store promises, in words.
async fn consistency(State(store): Shop) -> Reply {
    let all: Value = serde_json::from_str(include_str!("consistency.json"))?;
    Ok(Json(all[store.name()].clone()))
}

async fn ready(shop: Shop) -> Reply {
    shop.ping().await.map(|()| Json(json!({ "status": "ready" })))
}
