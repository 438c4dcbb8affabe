//! The answer as one writes it in an interview: a fixed window for each address, in a map.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

const LIMIT: u32 = 100;
const WINDOW: Duration = Duration::from_mins(15);

/// For each client, when its window opened and how many requests it has sent since.
type Windows = Arc<Mutex<HashMap<String, (Instant, u32)>>>;

/// All of the service.
pub fn router() -> Router {
    let api = Router::new()
        .route("/hello", get(hello).post(hello_to))
        .route("/report", get(report))
        .layer(from_fn_with_state(Windows::default(), limit));
    Router::new()
        .nest("/api", api)
        .route("/healthz", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(async || Json(json!({ "status": "ready" }))))
}

async fn limit(State(windows): State<Windows>, request: Request, next: Next) -> Response {
    let header = request.headers().get("x-forwarded-for");
    let addresses = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    // The client is the first address: "client, proxy1, proxy2".
    let client = addresses.split(',').next().unwrap_or_default().trim().to_owned();

    let now = Instant::now();
    let (opened, used) = {
        let mut windows = windows.lock().expect("nobody panics while holding it");
        let (opened, used) = windows.entry(client).or_insert((now, 0));
        if now.duration_since(*opened) >= WINDOW {
            (*opened, *used) = (now, 0);
        }
        *used += 1;
        (*opened, *used)
    };
    let reset = (opened + WINDOW).duration_since(now).as_secs() + 1;

    let mut response = if used <= LIMIT {
        next.run(request).await
    } else {
        let problem = json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": "Quota exceeded",
            "status": 429,
            "violated-policies": ["api"],
        });
        let mut refused = (StatusCode::TOO_MANY_REQUESTS, Json(problem)).into_response();
        let json = HeaderValue::from_static("application/problem+json");
        refused.headers_mut().insert(CONTENT_TYPE, json);
        refused.headers_mut().insert("retry-after", reset.into());
        refused
    };
    let left = LIMIT.saturating_sub(used);
    for (name, value) in [
        ("ratelimit-policy", format!("\"api\";q={LIMIT};w={}", WINDOW.as_secs())),
        ("ratelimit", format!("\"api\";r={left};t={reset}")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn hello() -> Json<Value> {
    Json(json!({ "hello": "world" }))
}

async fn hello_to(Json(greeting): Json<Value>) -> Json<Value> {
    Json(json!({ "hello": greeting["name"] }))
}

async fn report() -> Json<Value> {
    Json(json!({ "report": "a lot of work" }))
}
