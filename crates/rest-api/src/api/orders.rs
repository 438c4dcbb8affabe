//! How are orders read, made and moved on over HTTP?

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::IntoResponse;
use edge::Json;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Condition, Id, Refused, RefusedBody};
use crate::error::Error;
use crate::links::Links;
use crate::order::{OrderBody, OrderInput};

/// A user's newest hundred orders, as clients see them.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrdersBody {
    items: Vec<OrderBody>,
    _links: Links,
}

/// The orders of a user, the newest first.
#[utoipa::path(get, path = "/users/{id}/orders", params(Id),
    responses((status = 200, description = "the orders", body = OrdersBody), Refused))]
pub async fn of_user(State(app): State<Arc<App>>, id: Id) -> Result<Json<OrdersBody>, Error> {
    // Nobody's orders are no empty list.
    app.store.find(id.id).await?;
    let orders = app.store.orders_of(&[id.id]).await?;
    let items = orders.into_iter().map(|order| OrderBody::new(order, &app.urls)).collect();
    Ok(Json(OrdersBody { items, _links: app.urls.of_orders(id.id) }))
}

/// A new order of a user.
#[utoipa::path(post, path = "/users/{id}/orders", params(Id), request_body = OrderInput,
    responses((status = 201, description = "it is open", body = OrderBody), RefusedBody, Refused))]
pub async fn order(
    State(app): State<Arc<App>>,
    id: Id,
    Json(body): Json<OrderInput>,
) -> Result<impl IntoResponse, Error> {
    let (item, quantity) = body.parse()?;
    let order = app.store.order(id.id, &item, quantity).await?;
    let location = app.urls.to(&format!("/orders/{}", order.id)).href;
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(OrderBody::new(order, &app.urls))))
}

/// One order, with links to what may be done with it now.
#[utoipa::path(get, path = "/orders/{id}", params(Id),
    responses((status = 200, description = "the order", body = OrderBody), Refused))]
pub async fn show_order(State(app): State<Arc<App>>, id: Id) -> Result<Json<OrderBody>, Error> {
    Ok(Json(OrderBody::new(app.store.find_order(id.id).await?, &app.urls)))
}

/// Cancels the order. Again: the same.
#[utoipa::path(post, path = "/orders/{id}/cancellation", params(Id),
    responses((status = 200, description = "the order", body = OrderBody), Condition, Refused))]
pub async fn cancel(State(app): State<Arc<App>>, id: Id) -> Result<Json<OrderBody>, Error> {
    go(&app, id, "cancellation").await
}

/// Ships the order. Again: the same.
#[utoipa::path(post, path = "/orders/{id}/shipment", params(Id),
    responses((status = 200, description = "the order", body = OrderBody), Condition, Refused))]
pub async fn ship(State(app): State<Arc<App>>, id: Id) -> Result<Json<OrderBody>, Error> {
    go(&app, id, "shipment").await
}

// ANCHOR: go
/// Makes a move that the order allows. An order that is there already stays there, so the request may come twice.
async fn go(app: &App, id: Id, name: &str) -> Result<Json<OrderBody>, Error> {
    let order = app.store.find_order(id.id).await?;
    let moved = match order.state.moves().iter().find(|(it, _)| *it == name) {
        Some((_, to)) => app.store.move_order(id.id, order.state, *to).await?,
        None => Some(order).filter(|order| order.state.is_after(name)),
    };
    Ok(Json(OrderBody::new(moved.ok_or(Error::NotNow)?, &app.urls)))
}
// ANCHOR_END: go
