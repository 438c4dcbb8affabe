//! The usual answer, built: SQL for the money, which needs ACID, and NoSQL for profiles and products, which are flexible.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::{AsyncCommands, aio::MultiplexedConnection};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

#[derive(Clone)]
struct Shop {
    sql: PgPool,
    nosql: MultiplexedConnection,
    /// Other programs use this Redis too.
    prefix: String,
}

/// All of the service.
pub async fn router(database: &str, redis: &str) -> anyhow::Result<Router> {
    let sql = PgPool::connect(database).await?;
    let tables = "create table if not exists accounts (customer text primary key, balance_cents bigint not null);
                  create table if not exists payments (number bigserial, customer text, body jsonb)";
    sqlx::raw_sql(tables).execute(&sql).await?;
    let nosql = redis::Client::open(redis)?.get_multiplexed_async_connection().await?;
    let prefix = std::env::var("KEY_PREFIX").unwrap_or("worked-answers:whiteboard:".to_owned());
    Ok(Router::new()
        .route("/{kind}/{id}", get(show).put(put))
        .route("/customers/{id}/deposits", post(deposit))
        .route("/products/{id}/deliveries", post(deliver))
        .route("/orders", post(order))
        .route("/customers/{id}/orders", get(orders))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(Shop { sql, nosql, prefix }))
}

impl Shop {
    async fn read(&self, kind: &str, id: &str) -> Result<Value, Failed> {
        let key = format!("{}{kind}:{id}", self.prefix);
        let text: Option<String> = self.nosql.clone().get(key).await?;
        Ok(serde_json::from_str(&text.ok_or(NOT_FOUND)?)?)
    }

    async fn write(&self, kind: &str, id: &str, value: &Value) -> Result<(), Failed> {
        let key = format!("{}{kind}:{id}", self.prefix);
        Ok(self.nosql.clone().set(key, value.to_string()).await?)
    }

    async fn balance(&self, customer: &str) -> Result<i64, Failed> {
        let select = "select balance_cents from accounts where customer = $1";
        let balance = sqlx::query_scalar(select).bind(customer).fetch_optional(&self.sql).await?;
        Ok(balance.unwrap_or(0))
    }
}

type Thing = Path<(String, String)>;
type Answer = Result<Json<Value>, Failed>;

async fn show(shop: State<Shop>, Path((kind, id)): Thing) -> Answer {
    let mut value = shop.read(&kind, &id).await?;
    if kind == "customers" {
        value["balance_cents"] = json!(shop.balance(&id).await?);
    }
    Ok(Json(value))
}

async fn put(shop: State<Shop>, Path((kind, id)): Thing, Json(mut value): Json<Value>) -> Answer {
    value["id"] = json!(id);
    if kind == "products" {
        value["stock"] = shop.read(&kind, &id).await.map_or(json!(0), |old| old["stock"].clone());
    }
    shop.write(&kind, &id, &value).await?;
    Ok(Json(value))
}

async fn deposit(shop: State<Shop>, id: Path<String>, body: Json<Value>) -> Answer {
    let insert = "insert into accounts values ($1, $2) on conflict (customer) do update \
                  set balance_cents = accounts.balance_cents + $2";
    sqlx::query(insert).bind(&*id).bind(body["amount"].as_i64()).execute(&shop.sql).await?;
    Ok(Json(json!({ "balance_cents": shop.balance(&id).await? })))
}

async fn deliver(shop: State<Shop>, id: Path<String>, body: Json<Value>) -> Answer {
    let mut product = shop.read("products", &id).await?;
    let stock = product["stock"].as_i64().unwrap_or(0) + body["amount"].as_i64().unwrap_or(0);
    product["stock"] = json!(stock);
    shop.write("products", &id, &product).await?;
    Ok(Json(json!({ "stock": stock })))
}

async fn order(shop: State<Shop>, Json(mut order): Json<Value>) -> Result<Response, Failed> {
    let customer = order["customer"].as_str().ok_or(BAD)?.to_owned();
    let (mut total, mut products, mut lines) = (0, Vec::new(), Vec::new());
    for (id, quantity) in order["lines"].as_object().ok_or(BAD)? {
        let mut product = shop.read("products", id).await?;
        let number = |value: &Value| value.as_i64().ok_or(BAD);
        let (stock, price) = (number(&product["stock"])?, number(&product["price_cents"])?);
        let quantity = number(quantity)?;
        if stock < quantity {
            return Err(CONFLICT);
        }
        total += quantity * price;
        lines.push(json!({ "product": id, "name": product["name"], "quantity": quantity, "price_cents": price }));
        product["stock"] = json!(stock - quantity);
        products.push((id.clone(), product));
    }
    (order["lines"], order["total_cents"]) = (json!(lines), json!(total));
    order["id"] = json!(Uuid::now_v7());
    let mut tx = shop.sql.begin().await?;
    let pay = "update accounts set balance_cents = balance_cents - $2 where customer = $1 and balance_cents >= $2";
    let paid = sqlx::query(pay).bind(&customer).bind(total).execute(&mut *tx).await?;
    if paid.rows_affected() == 0 {
        return Err(CONFLICT);
    }
    let insert = sqlx::query("insert into payments (customer, body) values ($1, $2)");
    insert.bind(customer).bind(&order).execute(&mut *tx).await?;
    tx.commit().await?;
    for (id, product) in products {
        shop.write("products", &id, &product).await?;
    }
    Ok((StatusCode::CREATED, Json(order)).into_response())
}

async fn orders(shop: State<Shop>, id: Path<String>) -> Answer {
    let select = "select body from payments where customer = $1 order by number desc";
    let items: Vec<Value> = sqlx::query_scalar(select).bind(&*id).fetch_all(&shop.sql).await?;
    Ok(Json(json!({ "items": items })))
}

struct Failed(StatusCode);
const NOT_FOUND: Failed = Failed(StatusCode::NOT_FOUND);
const CONFLICT: Failed = Failed(StatusCode::CONFLICT);
const BAD: Failed = Failed(StatusCode::UNPROCESSABLE_ENTITY);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        tracing::error!("{error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}
