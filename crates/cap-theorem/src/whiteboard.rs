//! The replicated store as one writes it in the interview: R + W > N, and the last write wins.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

/// The later write is the greater value: the time comes first.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
struct Stamped {
    time: f64,
    value: String,
}

#[derive(Clone, Deserialize)]
struct NewValue {
    value: String,
}

#[derive(Deserialize)]
struct Counts {
    r: Option<String>,
    w: Option<String>,
}

#[derive(Clone)]
struct Node {
    data: Arc<Mutex<HashMap<String, Stamped>>>,
    peers: Arc<Vec<String>>,
    http: reqwest::Client,
}

/// One node. The others are at these URLs.
pub fn router(peers: Vec<String>) -> Router {
    let node = Node { data: Arc::default(), peers: Arc::new(peers), http: reqwest::Client::new() };
    Router::new()
        .route("/keys/{key}", get(read).put(write))
        .route("/replica/{key}", put(replicate).get(own))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(node)
}

impl Node {
    /// R and W: with N = 3, two of each are a quorum, and 2 + 2 > 3.
    fn needed(&self, level: Option<&str>) -> usize {
        let nodes = self.peers.len() + 1;
        match level {
            Some("1") => 1,
            Some("all") => nodes,
            _ => nodes / 2 + 1,
        }
    }

    fn get(&self, key: &str) -> Option<Stamped> {
        self.data.lock().ok()?.get(key).cloned()
    }

    fn set(&self, key: String, new: Stamped) {
        if let Ok(mut data) = self.data.lock() {
            let old = data.entry(key).or_insert_with(|| new.clone());
            if *old < new {
                *old = new;
            }
        }
    }
}

async fn write(
    State(node): State<Node>,
    Path(key): Path<String>,
    Query(counts): Query<Counts>,
    Json(NewValue { value }): Json<NewValue>,
) -> Response {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let new = Stamped { time, value };
    node.set(key.clone(), new.clone());
    let mut calls = JoinSet::new();
    for peer in node.peers.iter() {
        let call = node.http.put(format!("{peer}/replica/{key}")).json(&new).send();
        calls.spawn(async move { call.await.is_ok_and(|answer| answer.status().is_success()) });
    }
    let mut acknowledged = 1;
    while acknowledged < node.needed(counts.w.as_deref()) {
        match calls.join_next().await {
            Some(ended) => acknowledged += usize::from(ended.unwrap_or_default()),
            None => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
    calls.detach_all();
    Json(json!({ "key": key, "acknowledged": acknowledged })).into_response()
}

async fn read(
    State(node): State<Node>,
    Path(key): Path<String>,
    Query(counts): Query<Counts>,
) -> Response {
    let mut calls = JoinSet::new();
    for peer in node.peers.iter() {
        let call = node.http.get(format!("{peer}/replica/{key}")).send();
        calls.spawn(async move { call.await.ok()?.json::<Option<Stamped>>().await.ok() });
    }
    let mut answers = vec![node.get(&key)];
    while answers.len() < node.needed(counts.r.as_deref()) {
        match calls.join_next().await {
            Some(ended) => answers.extend(ended.ok().flatten()),
            None => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        }
    }
    let newest = answers.into_iter().flatten().reduce(|a, b| if a < b { b } else { a });
    match newest {
        Some(Stamped { value, .. }) => {
            Json(json!({ "key": key, "values": [value] })).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn replicate(State(node): State<Node>, Path(key): Path<String>, Json(new): Json<Stamped>) {
    node.set(key, new);
}

async fn own(State(node): State<Node>, Path(key): Path<String>) -> Json<Option<Stamped>> {
    Json(node.get(&key))
}
