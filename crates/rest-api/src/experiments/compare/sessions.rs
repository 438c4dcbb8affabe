//! A server that remembers who has logged in, in its memory.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use reqwest::Client;

use crate::cases::client::new_name;

type Sessions = Arc<Mutex<HashSet<String>>>;

/// Its two calls.
pub fn router() -> Router {
    Router::new().route("/login", post(login)).route("/me", get(me)).with_state(Sessions::default())
}

async fn login(State(sessions): State<Sessions>) -> String {
    let token = new_name();
    sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone());
    token
}

async fn me(State(sessions): State<Sessions>, headers: HeaderMap) -> StatusCode {
    let token = headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let known = sessions.lock().unwrap_or_else(PoisonError::into_inner).contains(token);
    if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}

/// The token of a new session.
pub async fn log_in(host: &str) -> anyhow::Result<String> {
    let answer = client()?.post(format!("http://{host}/login")).send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

/// Whether this server knows the session.
pub async fn knows(host: &str, token: &str) -> anyhow::Result<bool> {
    let request = client()?.get(format!("http://{host}/me")).header("authorization", token);
    Ok(request.send().await?.status() == StatusCode::OK)
}

fn client() -> reqwest::Result<Client> {
    Client::builder().no_proxy().build()
}
