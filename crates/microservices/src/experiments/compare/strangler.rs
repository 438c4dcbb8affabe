//! How do clients move from the monolith to the services, one route after another, and back if need be?
//!
//! It stands before both (a strangler fig). For each route it asks the old side, or the old side while it compares the
//! new side's answers with it, or the new side.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get, routing::put};
use edge::{Json, frame::framed, path::Segment};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::error::{Error, Fault, Result};
use crate::peer::whole;

const MAX_BODY: usize = 64 * 1_024;
/// Of an answer: many times the longest.
const MAX_ANSWER: usize = 1_024 * 1_024;
/// For a whole request.
const LONGEST: Duration = Duration::from_secs(20);
/// Comparisons that may be under way. What comes beyond that is not compared: a customer must not wait for one.
const COMPARING: usize = 32;

/// Who answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The monolith
    #[default]
    Legacy,
    /// The monolith; reads are sent to the services too, and compared
    Shadow,
    /// The services
    Modern,
}

/// One route: the first part of a path.
#[derive(Clone, Debug, Default, Serialize)]
struct Route {
    mode: Mode,
    /// Answers that were the same, or not.
    same: u64,
    different: u64,
    /// The last that was not.
    example: Option<String>,
}

/// What `PUT /routes/{name}` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteInput {
    mode: Mode,
}

#[derive(Clone, Debug)]
struct Strangler {
    legacy: String,
    modern: String,
    http: Client,
    routes: Arc<Mutex<BTreeMap<String, Route>>>,
    comparing: Arc<Semaphore>,
}

/// An answer of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// Stands before the program at these addresses.
pub fn router(legacy: String, modern: String) -> anyhow::Result<Router> {
    let [legacy, modern] = [legacy, modern].map(|it| it.trim_end_matches('/').to_owned());
    let redirect = reqwest::redirect::Policy::none();
    let http = Client::builder().no_proxy().redirect(redirect).timeout(LONGEST).build()?;
    let names = ["products", "orders", "customers"];
    let routes = names.map(|name| (name.to_owned(), Route::default())).into();
    let (routes, comparing) = (Arc::new(Mutex::new(routes)), Arc::new(Semaphore::new(COMPARING)));
    let strangler = Strangler { legacy, modern, http, routes, comparing };
    let own = Router::new().route("/routes", get(show)).route("/routes/{name}", put(change));
    let own = own.route("/readyz", get(edge::frame::alive));
    let forwarded = ["/products/{id}", "/orders", "/orders/{id}", "/customers/{id}/history"];
    let calls =
        forwarded.into_iter().fold(own, |it, path| it.route(path, axum::routing::any(forward)));
    Ok(framed(calls, LONGEST, MAX_BODY).with_state(strangler))
}

async fn show(State(it): State<Strangler>) -> Json<BTreeMap<String, Route>> {
    Json(it.routes.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Moves a route, or moves it back. From the next request on.
async fn change(
    State(it): State<Strangler>,
    name: Segment,
    Json(input): Json<RouteInput>,
) -> Result<Json<Route>> {
    let mut routes = it.routes.lock().unwrap_or_else(PoisonError::into_inner);
    let route = routes.get_mut(&name.0).ok_or(Error::NOT_FOUND)?;
    route.mode = input.mode;
    Ok(Json(route.clone()))
}

// ANCHOR: forward
async fn forward(State(it): State<Strangler>, request: Request) -> Result<Response> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY).await;
    let body = body.map_err(|_| Error::from(edge::json::JsonRejection::TooLarge))?;
    let name = head.uri.path().split('/').nth(1).unwrap_or_default().to_owned();
    let mode = it.route(&name, |route| route.mode);
    let side = if mode == Mode::Modern { &it.modern } else { &it.legacy };
    let answer = it.ask(side, &head.method, &head.uri, &head.headers, body).await?;
    // Only what changes nothing may be asked twice.
    if mode == Mode::Shadow && head.method == Method::GET {
        it.compare(name, head.uri, head.headers, answer.clone());
    }
    Ok(answer.into_response())
}
// ANCHOR_END: forward

impl Strangler {
    fn route<T: Default>(&self, name: &str, look: impl FnOnce(&mut Route) -> T) -> T {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get_mut(name).map(look).unwrap_or_default()
    }

    // ANCHOR: compare
    /// Asks the new side too, and counts whether it says the same. The customer has the old side's answer already.
    fn compare(&self, name: String, uri: Uri, headers: HeaderMap, old: Answer) {
        let Ok(place) = Arc::clone(&self.comparing).try_acquire_owned() else { return };
        let it = self.clone();
        // It ends by itself: a question has a time-out, and there are not many.
        tokio::spawn(async move {
            let new = it.ask(&it.modern, &Method::GET, &uri, &headers, Bytes::new()).await;
            let seen = new.map_or_else(|error| error.to_string(), |it| it.shown());
            it.route(&name, |route| {
                if seen == old.shown() {
                    route.same += 1;
                } else {
                    route.different += 1;
                    route.example = Some(format!("{uri}: {} and {seen}", old.shown()));
                }
            });
            drop(place);
        });
    }
    // ANCHOR_END: compare

    async fn ask(
        &self,
        side: &str,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer> {
        let away = |error: reqwest::Error| {
            let fault = if error.is_timeout() { Fault::TooSlow } else { Fault::Away };
            Error::Upstream("the shop", fault)
        };
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        let mut request = self.http.request(method.clone(), format!("{side}{path}"));
        for name in ["content-type", "idempotency-key", "x-timeout-ms", "traceparent"] {
            for value in headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        let answer = request.body(body).send().await.map_err(away)?;
        let kept =
            [CONTENT_TYPE.as_str(), LOCATION.as_str(), "retry-after", "allow", "traceparent"];
        let kept = kept
            .into_iter()
            .filter_map(|name| Some((name, answer.headers().get(name)?.to_str().ok()?.to_owned())));
        let (status, headers) = (answer.status().as_u16(), kept.collect());
        let body = whole(answer, MAX_ANSWER).await;
        let body = body.map_err(|fault| Error::Upstream("the shop", fault))?.into();
        Ok(Answer { status, headers, body })
    }
}

impl Answer {
    /// What is compared.
    fn shown(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body).trim_end())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut response = (status, self.body).into_response();
        response.headers_mut().remove(CONTENT_TYPE);
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
