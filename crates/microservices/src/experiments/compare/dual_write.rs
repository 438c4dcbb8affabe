//! How does one tell of an order in the naive way? First the order is written, then the event is sent.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use serde_json::{Value, json};
use sqlx::query;
use uuid::Uuid;

use super::broker::Broker;
use crate::module::{Database, Event, Numbered};

struct Naive {
    database: Database,
    channel: Channel,
    exchange: String,
    _connection: Connection,
}

/// `POST /naive-orders`.
pub async fn router(broker: &Broker, database: Database) -> anyhow::Result<Router> {
    let connection = Connection::connect(&broker.url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let exchange = format!("{}events", broker.prefix);
    let naive = Naive { database, channel, exchange, _connection: connection };
    Ok(Router::new().route("/naive-orders", post(order)).with_state(Arc::new(naive)))
}

async fn order(
    State(naive): State<Arc<Naive>>,
    Json(body): Json<Value>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let failed = |_| StatusCode::SERVICE_UNAVAILABLE;
    let (id, customer) = (Uuid::now_v7(), body["customer"].as_i64().unwrap_or(1));
    let product = body["product"].as_i64().unwrap_or(1);
    let insert = "insert into orders.orders (id, key, customer, product, quantity, cents, payment)
                  values ($1, $1::text, $2, $3, 1, 0, $1)";
    let insert = query(insert).bind(id).bind(customer).bind(product);
    naive.database.execute(insert).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    // Whoever dies here has an order that nobody else will ever hear of.
    let event = Event::OrderPlaced(id, customer, product);
    let body = json!(Numbered { number: 0, event }).to_string();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let exchange = naive.exchange.as_str().into();
    let sent =
        naive.channel.basic_publish(exchange, "".into(), options, body.as_bytes(), properties);
    sent.await.map_err(failed)?.await.map_err(failed)?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))))
}
