//! What does the shop say, and to whom? The table of calls for clients, and each module's calls for the others.
#![allow(clippy::unused_async, reason = "handlers are")]

use std::{sync::Arc, time::Duration};

use axum::extract::{Extension, MatchedPath, Query, Request, State, rejection::JsonRejection};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header::LOCATION};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get, routing::post};
use edge::{Json, frame::framed, path::Segment, trace::TRACEPARENT, trace::digits};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::limit::GlobalConcurrencyLimitLayer;
use uuid::Uuid;

use crate::call::{Call, Spans};
use crate::catalogue::{Product, ProductInput, number};
use crate::error::{Error, Result};
use crate::module::Database;
use crate::orders::{NewOrder, Order};
use crate::peer::{CONTRACT, VERSION};
use crate::reach::Reach;
use crate::shop::{By, Page, Shop};

const TRACE: HeaderName = HeaderName::from_static(TRACEPARENT);
const MAX_BODY: usize = 64 * 1_024;

/// The call that this request is; see [`called`].
type This = Extension<Call>;

/// A question of another service, if it is one.
type Asked<A> = std::result::Result<axum::Json<A>, JsonRejection>;

/// How requests come in.
#[derive(Clone, Debug)]
pub struct Door {
    /// What this process did.
    pub spans: Arc<Spans>,
    /// For a whole request.
    pub longest: Duration,
}

// ANCHOR: called
/// Reads what came with a request, gives it to the handler for as long as the caller waits, and says which trace and which
/// contract it was.
async fn called(State(door): State<Door>, mut request: Request, next: Next) -> Result<Response> {
    let call = Call::receive(request.headers(), door.longest, &door.spans)?;
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let name = format!("{} {path}", request.method());
    let left = call.left()?;
    let answered = call.span(name, |call| async move {
        let trace = HeaderValue::from_str(&call.trace.to_string());
        request.extensions_mut().insert(call);
        let answer = timeout(left, next.run(request)).await;
        let mut answer = answer.unwrap_or_else(|_| Error::TOO_LATE.into_response());
        answer.headers_mut().insert(CONTRACT, HeaderValue::from_static(VERSION));
        answer.headers_mut().extend(trace.ok().map(|it| (TRACE, it)));
        if answer.status().is_server_error() { Err(answer) } else { Ok(answer) }
    });
    Ok(answered.await.unwrap_or_else(|failed| failed))
}
// ANCHOR_END: called

/// The whole of a process: these calls, and what every service says of itself.
pub fn whole(calls: Router, door: &Door, name: &str, database: Option<Database>) -> Router {
    let about = json!({ "name": name, "version": env!("CARGO_PKG_VERSION"), "contract": VERSION });
    let spans = Arc::clone(&door.spans);
    let spans = move |id: Segment| async move {
        let id = digits(&id.0, 32).ok_or(Error::NOT_FOUND)?;
        Result::Ok(Json(spans.of(id)))
    };
    let all = calls
        .route_layer(from_fn_with_state(door.clone(), called))
        .route("/internal/about", get(move || async move { Json(about) }))
        .route("/internal/spans/{id}", get(spans))
        .route("/readyz", get(move || ready(database)));
    // A little longer than what a request may take, so that its own answer comes first.
    framed(all, door.longest + Duration::from_millis(200), MAX_BODY)
}

async fn ready(database: Option<Database>) -> Result<Json<Value>> {
    if let Some(database) = database {
        database.ping().await?;
    }
    Ok(Json(json!({ "status": "ready" })))
}

/// A module as a service, if it is here: its function for questions, by HTTP.
pub fn service<M, A, F, W>(name: &str, module: &Reach<M>, answer: F) -> Router
where
    M: Clone + Send + Sync + 'static,
    A: DeserializeOwned + Send + 'static,
    F: Fn(M, Call, A) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Value>> + Send + 'static,
{
    let Reach::Here(module) = module.clone() else { return Router::new() };
    let ask = move |Extension(call): This, ask: Asked<A>| async move {
        // Never 422, which is the shop's word for a client's key.
        let axum::Json(ask) = ask.map_err(|_| Error::BAD_QUESTION)?;
        answer(module, call, ask).await.map(Json)
    };
    Router::new().route(&format!("/internal/{name}"), post(ask))
}

/// What clients may call.
pub fn clients(shop: Shop, in_flight: usize) -> Router {
    Router::new()
        .route("/products/{id}", get(page).put(put_product))
        .route("/orders", post(place))
        .route("/orders/{id}", get(order))
        .route("/customers/{id}/history", get(history))
        // So many are at work at once, and others wait.
        .route_layer(GlobalConcurrencyLimitLayer::new(in_flight))
        .route("/topology", get(topology))
        .route("/trace/{id}", get(trace))
        .with_state(Arc::new(shop))
}

type Here = State<Arc<Shop>>;

/// A product with its price, and what goes with it.
async fn page(State(shop): Here, Extension(call): This, id: Segment) -> Result<Json<Page>> {
    Ok(Json(shop.page(&call, number(&id.0)?).await?))
}

/// Puts a product up for sale. Again: the same.
async fn put_product(
    State(shop): Here,
    Extension(call): This,
    id: Segment,
    Json(body): Json<ProductInput>,
) -> Result<Json<Product>> {
    let product = body.parse(number(&id.0)?)?;
    shop.catalogue.put(&call, product.clone()).await?;
    Ok(Json(product))
}

/// Buys something, once for each key.
async fn place(
    State(shop): Here,
    Extension(call): This,
    headers: HeaderMap,
    Json(body): Json<NewOrder>,
) -> Result<Response> {
    let order = shop.orders.place(&call, body.parse(&headers)?).await?;
    let location = [(LOCATION, format!("/orders/{}", order.id))];
    Ok((StatusCode::CREATED, location, Json(order)).into_response())
}

/// An order.
async fn order(State(shop): Here, Extension(call): This, id: Segment) -> Result<Json<Order>> {
    let found = Uuid::try_parse(&id.0).ok().filter(|it| it.to_string() == id.0);
    Ok(Json(shop.orders.find(&call, found.ok_or(Error::NOT_FOUND)?).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    #[serde(default)]
    by: By,
}

/// A customer's orders.
async fn history(
    State(shop): Here,
    Extension(call): This,
    id: Segment,
    uri: Uri,
) -> Result<Json<Value>> {
    let query = Query::<HistoryQuery>::try_from_uri(&uri).map_err(|_| Error::BAD_QUERY)?;
    let lines = shop.history(&call, number(&id.0)?, query.0.by).await?;
    Ok(Json(json!({ "orders": lines })))
}

/// What runs where.
async fn topology(State(shop): Here) -> Json<Value> {
    Json(shop.topology().await)
}

/// What was done for a request, and for how long.
async fn trace(State(shop): Here, id: Segment) -> Result<Json<Value>> {
    Ok(Json(shop.trace(digits(&id.0, 32).ok_or(Error::NOT_FOUND)?).await?))
}
