//! The shop as one draws it in the interview: five services that call each other over HTTP, and three tries for each call.
#![allow(clippy::unused_async, reason = "handlers are")]

use std::{env, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

struct Shop {
    db: PgPool,
    http: reqwest::Client,
    url: String,
}

type Here = State<Arc<Shop>>;
type Answer = Result<Json<Value>, StatusCode>;
type Created = Result<(StatusCode, Json<Value>), StatusCode>;

/// All services at once; each is also a service of its own, at its own address.
pub async fn router(database_url: &str, url: &str) -> anyhow::Result<Router> {
    let db = PgPoolOptions::new().max_connections(10).connect(database_url).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let shop = Arc::new(Shop { db, http, url: url.to_owned() });
    Ok(Router::new()
        .route("/products/{id}", get(page).put(put))
        .route("/orders", post(buy))
        .route("/orders/{id}", get(order))
        .route("/internal/catalogue/products/{id}", get(product))
        .route("/internal/pricing/{cents}/{quantity}", get(price))
        .route("/internal/recommendations/{id}", get(recommended))
        .route("/internal/orders", post(place))
        .route("/internal/payments", post(pay))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(shop))
}

impl Shop {
    /// Asks another service, three times if need be.
    async fn ask(&self, service: &str, path: &str, body: Option<&Value>) -> Answer {
        let url = env::var(service).unwrap_or_else(|_| self.url.clone()) + path;
        let mut status = StatusCode::SERVICE_UNAVAILABLE;
        for _ in 0..3 {
            let get = || self.http.get(&url);
            let request = body.map_or_else(get, |body| self.http.post(&url).json(body));
            let Ok(answer) = request.send().await else { continue };
            status = answer.status();
            if status.is_success() {
                return answer.json().await.map(Json).map_err(|_| StatusCode::BAD_GATEWAY);
            }
        }
        Err(status)
    }

    /// The only row of a statement, as JSON.
    async fn row(&self, sql: &'static str, with: &Value) -> Result<Value, StatusCode> {
        let row = sqlx::query_scalar(sql).bind(with).fetch_one(&self.db).await;
        row.map_err(|_| StatusCode::NOT_FOUND)
    }

    /// A product with its price.
    async fn item(&self, id: i64) -> Result<Value, StatusCode> {
        let mut item =
            self.ask("SHOP", &format!("/internal/catalogue/products/{id}"), None).await?.0;
        let price =
            self.ask("SHOP", &format!("/internal/pricing/{}/1", item["cents"]), None).await?;
        item["cents"] = price.0["cents"].clone();
        Ok(item)
    }
}

async fn page(State(shop): Here, Path(id): Path<i64>) -> Answer {
    let mut page = shop.item(id).await?;
    let path = format!("/internal/recommendations/{id}");
    let mut items = Vec::new();
    let others = shop.ask("SHOP_RECOMMENDATIONS", &path, None).await?.0;
    for other in others["products"].as_array().into_iter().flatten() {
        items.push(shop.item(other.as_i64().unwrap_or(0)).await?);
    }
    page["recommendations"] = items.into();
    Ok(Json(page))
}

async fn put(State(shop): Here, Path(id): Path<i64>, Json(mut new): Json<Value>) -> Answer {
    new["id"] = id.into();
    let put = "insert into catalogue.products
               select * from jsonb_populate_record(null::catalogue.products, $1)
               on conflict (id) do update set name = excluded.name, cents = excluded.cents
               returning to_jsonb(products)";
    shop.row(put, &new).await.map(Json)
}

async fn product(State(shop): Here, Path(id): Path<i64>) -> Answer {
    let find = "select to_jsonb(p) from catalogue.products as p where id = $1::bigint";
    shop.row(find, &id.into()).await.map(Json)
}

async fn price(Path((cents, quantity)): Path<(i64, i64)>) -> Json<Value> {
    let percent = [100, 95, 90][usize::from(quantity >= 3) + usize::from(quantity >= 10)];
    Json(json!({ "cents": cents * quantity * percent / 100 }))
}

async fn recommended(State(shop): Here, Path(id): Path<i64>) -> Answer {
    let find = "select jsonb_build_object('products', coalesce(jsonb_agg(product), '[]')) from (
                    select distinct b.product
                    from recommendations.bought a join recommendations.bought b using (customer)
                    where a.product = $1::bigint and b.product <> a.product limit 2) as other";
    shop.row(find, &id.into()).await.map(Json)
}

async fn buy(State(shop): Here, headers: HeaderMap, Json(mut new): Json<Value>) -> Created {
    new["key"] = headers.get("idempotency-key").and_then(|it| it.to_str().ok()).into();
    Ok((StatusCode::CREATED, shop.ask("SHOP", "/internal/orders", Some(&new)).await?))
}

async fn place(State(shop): Here, Json(mut new): Json<Value>) -> Answer {
    let path = format!("/internal/catalogue/products/{}", new["product"]);
    let product = shop.ask("SHOP", &path, None).await?.0;
    let path = format!("/internal/pricing/{}/{}", product["cents"], new["quantity"]);
    new["cents"] = shop.ask("SHOP", &path, None).await?.0["cents"].clone();
    new["payment"] =
        shop.ask("SHOP_PAYMENTS", "/internal/payments", Some(&new)).await?.0["id"].clone();
    (new["id"], new["key"]) = (json!(Uuid::now_v7()), json!(Uuid::now_v7()));
    new["created_at"] = json!("now");
    let insert = "with o as (
                      insert into orders.orders
                      select * from jsonb_populate_record(null::orders.orders, $1) returning *
                  ), b as (
                      insert into recommendations.bought select id, customer, product from o
                  ) select to_jsonb(o) from o";
    shop.row(insert, &new).await.map(Json)
}

async fn pay(Json(_): Json<Value>) -> Json<Value> {
    Json(json!({ "id": Uuid::now_v7() }))
}

async fn order(State(shop): Here, Path(id): Path<Uuid>) -> Answer {
    let find = "select to_jsonb(o) from orders.orders as o where id = ($1 #>> '{}')::uuid";
    shop.row(find, &json!(id)).await.map(Json)
}
