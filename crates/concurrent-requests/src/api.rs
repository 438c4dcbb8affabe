//! What does the shop say, and to whom? The table of calls as handlers, behind the door that lets requests in.
#![allow(clippy::unused_async, reason = "handlers are")]

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get, routing::post};
use edge::{Json, frame::framed, json::JsonRejection, path::Segment};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admission::{Priority, Teaches};
use crate::cancel::finished;
use crate::deadline::deadline;
use crate::error::{Error, Result};
use crate::jobs::Job;
use crate::order::{Order, OrderInput, Product, ProductInput};
use crate::report::{Day, Report};
use crate::service::Shop;
use crate::watchdog::watched;

/// Many times the largest order.
const MAX_BODY: usize = 64 * 1_024;

/// Where the handlers find everything.
type Here = State<Shop>;

/// All of the shop.
pub fn router(shop: Shop) -> Router {
    let held = Duration::from_millis(shop.options.watchdog_ms);
    let mut calls = Router::new()
        .route("/products/{id}", get(show).put(put))
        .route("/products/{id}/price", get(price))
        .route("/orders", post(order))
        .route("/orders/{id}", get(show_order))
        .route("/reports/{day}", get(report).post(report_later))
        .route_layer(from_fn_with_state(held, watched))
        .route_layer(from_fn_with_state(shop.clone(), admitted));
    if shop.options.finish_abandoned {
        calls = calls.route_layer(from_fn(finished));
    }
    // What tells about the pressure must answer under pressure, so it does not wait at the door.
    let calls = calls
        .route("/jobs/{id}", get(job))
        .route("/pressure", get(pressure))
        .route("/metrics", get(metrics))
        .route("/readyz", get(ready));
    framed(calls, shop.timeout(), MAX_BODY).with_state(shop)
}

// ANCHOR: admitted
/// Lets a request in, keeps its place until it is answered, and refuses it if there is none. All of the body is read
/// before: a client that sends it slowly keeps no place. 200 and 201 teach the limit how long a request takes, and 503 that
/// it takes longer: the store's time may have been over. The others may have asked the database nothing.
async fn admitted(State(shop): Here, request: Request, next: Next) -> Result<Response> {
    let deadline = deadline(request.headers(), shop.timeout())?;
    let buys = request.method() == Method::POST && request.uri().path() == "/orders";
    let priority = if buys { Priority::Checkout } else { Priority::Browsing };
    let (head, body) = request.into_parts();
    let mut body = Request::new(body);
    DefaultBodyLimit::max(MAX_BODY).apply(&mut body);
    let body = Bytes::from_request(body, &()).await.map_err(JsonRejection::from)?;
    let mut place = shop.admission.enter(priority, deadline).await?;
    let answer = next.run(Request::from_parts(head, Body::from(body))).await;
    place.teaches = match answer.status() {
        StatusCode::OK | StatusCode::CREATED => Teaches::Exactly,
        StatusCode::SERVICE_UNAVAILABLE => Teaches::AtLeast,
        _ => Teaches::Nothing,
    };
    Ok(answer)
}
// ANCHOR_END: admitted

/// The number of a product in the path, written as we write it.
fn number(part: &Segment) -> Result<i64> {
    let id = part.0.parse::<i64>().ok().filter(|id| *id > 0 && id.to_string() == part.0);
    id.ok_or(Error::NOT_FOUND)
}

/// The id of an order or a job in the path.
fn id(part: &Segment) -> Result<Uuid> {
    let id = Uuid::try_parse(&part.0).ok().filter(|id| id.to_string() == part.0);
    id.ok_or(Error::NOT_FOUND)
}

/// A product.
async fn show(State(shop): Here, part: Segment) -> Result<Json<Product>> {
    Ok(Json(shop.store.find(number(&part)?).await?))
}

/// Puts a product up for sale. Again: the same.
async fn put(
    State(shop): Here,
    part: Segment,
    Json(body): Json<ProductInput>,
) -> Result<Json<Product>> {
    let product = body.parse(number(&part)?)?;
    shop.store.put(&product).await?;
    Ok(Json(product))
}

/// What it costs now.
async fn price(State(shop): Here, part: Segment) -> Result<Json<Value>> {
    let product = shop.store.find(number(&part)?).await?;
    let cents = shop.engine.price(&product).await?;
    Ok(Json(json!({ "product": product.id, "cents": cents })))
}

/// Buys something, once for each key.
async fn order(
    State(shop): Here,
    headers: HeaderMap,
    Json(body): Json<OrderInput>,
) -> Result<Response> {
    let order = shop.store.buy(&body.parse(&headers)?).await?;
    let location = [(LOCATION, format!("/orders/{}", order.id))];
    Ok((StatusCode::CREATED, location, Json(order)).into_response())
}

/// An order.
async fn show_order(State(shop): Here, part: Segment) -> Result<Json<Order>> {
    Ok(Json(shop.store.find_order(id(&part)?).await?))
}

/// A day's report, for somebody who waits for it. If the client hangs up, PostgreSQL works on, and so the bulkhead's place
/// stays taken: otherwise a client that asks and hangs up would get any number of connections. The time-out of the store
/// ends the task.
async fn report(State(shop): Here, part: Segment) -> Result<Json<Report>> {
    let day = Day::parse(&part.0)?;
    let place = shop.reports.enter()?;
    let work = tokio::spawn(async move {
        let _place = place;
        shop.store.report(day).await
    });
    work.await.map_err(|error| Error::Internal(Arc::new(error)))?.map(Json)
}

/// The same, for somebody who comes back for it.
async fn report_later(State(shop): Here, part: Segment) -> Result<Response> {
    let job = shop.jobs.add(Day::parse(&part.0)?)?;
    let location = [(LOCATION, format!("/jobs/{}", job.id))];
    Ok((StatusCode::ACCEPTED, location, Json(job)).into_response())
}

/// Whether the report is there.
async fn job(State(shop): Here, part: Segment) -> Result<Json<Job>> {
    Ok(Json(shop.jobs.find(id(&part)?)?))
}

/// How full the service is, for people.
async fn pressure(State(shop): Here) -> Json<Value> {
    let mut pressure = json!(shop.admission.pressure());
    pressure["jobs"] = shop.jobs.waiting().into();
    Json(pressure)
}

/// The same for Prometheus.
async fn metrics(State(shop): Here) -> Response {
    let now = shop.admission.pressure();
    let text = format!(
        "requests_in_flight {}\nrequests_waiting {}\nrequests_shed_total{{priority=\"checkout\"}} {}\n\
         requests_shed_total{{priority=\"browsing\"}} {}\nrequests_in_flight_limit {}\n\
         requests_waiting_limit {}\njobs_waiting {}\n",
        now.in_flight,
        now.waiting,
        now.shed.checkout,
        now.shed.browsing,
        now.limits.in_flight,
        now.limits.waiting,
        shop.jobs.waiting(),
    );
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Whether the database answers, on a connection for this alone: behind the requests, an overload would make the balancer
/// take this process out, and give its load to the others.
async fn ready(State(shop): Here) -> Result<Json<Value>> {
    shop.probe.ping().await?;
    Ok(Json(json!({ "status": "ready" })))
}
