//! What is it like to share a database? A report that takes what it needs from the tables of others.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};
use sqlx::PgPool;

/// This file, for a test that looks at which tables it reads.
pub const SOURCE: &str = include_str!("report.rs");

/// `GET /report`, on the orders' schema and, since it is there, on the catalogue's.
pub fn router(database: PgPool) -> Router {
    Router::new().route("/report", get(report)).with_state(database)
}

async fn report(State(database): State<PgPool>) -> Result<Json<Value>, StatusCode> {
    let report = r#"
        select name, count(*)
        from orders.orders as o
        join catalogue.products as p on p.id = o.product
        group by name
        order by name
    "#;
    let rows: Vec<(String, i64)> = sqlx::query_as(report)
        .persistent(false)
        .fetch_all(&database)
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(json!(rows)))
}
