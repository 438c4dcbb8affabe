//! The answer as one writes it in the interview: a Dockerfile, and an app with two probes.

use std::{collections::HashMap, time::Duration};

use axum::{
    Json, Router,
    extract::Query,
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, process::Command, time::sleep};

/// The Dockerfile that everybody writes.
pub const DOCKERFILE: &str = r#"FROM python:3.11
WORKDIR /app
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY . .
CMD ["python", "app.py"]
"#;

/// The app. It has no handler for SIGTERM, and nothing that happens at its end.
pub fn router() -> Router {
    Router::new()
        .route("/", get(async || Json(json!({ "message": "Hello, Docker!" }))))
        .route("/jobs", post(job))
        .route("/healthz", get(healthy))
        .route("/readyz", get(healthy))
        .route("/eat", post(eat))
        .route("/fork", post(fork))
}

/// Both probes: whether we are well, and well means that the database is there.
async fn healthy() -> (StatusCode, &'static str) {
    let Ok(database) = std::env::var("BACKEND") else { return (StatusCode::OK, "healthy") };
    match TcpStream::connect(database).await {
        Ok(_) => (StatusCode::OK, "healthy"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database is away"),
    }
}

async fn job(Json(job): Json<Value>) -> Json<Value> {
    let milliseconds = job["milliseconds"].as_u64().unwrap_or_default().min(10_000);
    sleep(Duration::from_millis(milliseconds)).await;
    Json(json!({ "name": job["name"], "milliseconds": milliseconds }))
}

async fn eat(Query(query): Query<HashMap<String, u64>>) -> Json<Value> {
    let number = |name| query.get(name).copied().unwrap_or_default();
    let mib = number("mib").min(1_024);
    let bytes = vec![1_u8; usize::try_from(mib << 20).unwrap_or_default()];
    sleep(Duration::from_millis(number("milliseconds").min(10_000))).await;
    Json(json!({ "mib": bytes.len() >> 20 }))
}

async fn fork(Query(query): Query<HashMap<String, u32>>) -> Json<Value> {
    let children = query.get("children").copied().unwrap_or_default().min(1_000);
    let script = "n=0; while [ $n -lt $0 ]; do sleep 0.5 & n=$((n+1)); done";
    let _ = Command::new("sh").args(["-c", script, &children.to_string()]).status().await;
    Json(json!({ "children": children }))
}
