//! What does the port for HTTPS answer? The table of calls, as handlers.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Path, Request, State, rejection::PathRejection},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, SET_COOKIE, STRICT_TRANSPORT_SECURITY},
    },
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use edge::{
    Json,
    frame::{alive, in_time, method_not_allowed, panicked},
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::{
    certificate::Certificates,
    connection::Connection,
    error::Error,
    pages,
    redirect::Names,
    session::{Login, Sessions},
};

/// What the handlers share.
pub struct Api {
    /// Ours.
    pub names: Names,
    /// Who is logged in.
    pub sessions: Sessions,
    /// What is served, to be reloaded.
    pub certificates: Arc<Certificates>,
    /// For how long a browser shall stay with HTTPS.
    pub hsts: HeaderValue,
    /// Pages are as long as a multiple of this.
    pub pad_to: usize,
}

/// All of the port.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/pages/{topic}", get(page))
        .route("/login", post(log_in))
        .route("/me", get(me))
        .route("/machines", get(machine))
        .route("/admin/certificates/reload", post(reload))
        .route("/healthz", get(alive))
        .route("/readyz", get(alive))
        .fallback(async || Error::NotFound)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Arc::clone(&api), directed))
        .layer(from_fn_with_state(Duration::from_secs(5), in_time))
        .layer(DefaultBodyLimit::max(16 * 1_024))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(&api), strict_transport))
        .layer(TraceLayer::new_for_http().on_failure(()))
        .with_state(api)
}

async fn home(State(api): State<Arc<Api>>) -> Html<String> {
    Html(pages::pad(pages::home(), api.pad_to))
}

async fn page(
    State(api): State<Arc<Api>>,
    topic: Result<Path<String>, PathRejection>,
) -> Result<Html<String>, Error> {
    // A path that is no text names no page.
    let Path(topic) = topic.map_err(|_| Error::NotFound)?;
    let page = pages::page(&topic).ok_or(Error::NotFound)?;
    Ok(Html(pages::pad(page, api.pad_to)))
}

async fn log_in(
    State(api): State<Arc<Api>>,
    Json(login): Json<Login>,
) -> Result<impl IntoResponse, Error> {
    let cookie = api.sessions.log_in(&login, OffsetDateTime::now_utc())?;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]))
}

// ANCHOR: me
/// Who asks, and how the request arrived. Without TLS there is no connection to tell of.
async fn me(
    State(api): State<Arc<Api>>,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Error> {
    let user = api.sessions.user(&headers, OffsetDateTime::now_utc())?;
    let arrived = connection.map(|it| it.0);
    Ok(([(CACHE_CONTROL, "no-store")], Json(json!({ "user": user, "arrived": arrived }))))
}
// ANCHOR_END: me

async fn machine(Extension(connection): Extension<Connection>) -> Result<Json<Value>, Error> {
    let name = connection.client_certificate.ok_or(Error::NoClientCertificate)?;
    Ok(Json(json!({ "machine": name })))
}

/// Only for this machine; to others there is nothing here.
async fn reload(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<Connection>,
) -> Result<StatusCode, Error> {
    if !connection.peer.ip().to_canonical().is_loopback() {
        return Err(Error::NotFound);
    }
    // Two small files, rarely: no thread of its own.
    api.certificates.reload()?;
    Ok(StatusCode::NO_CONTENT)
}

// ANCHOR: directed
/// 421 unless the request is for one of our names, and for the one that the handshake was for. A client checked the
/// certificate for that name only, and rules for a host (who needs a client certificate, say) must not be evaded by
/// naming another one inside.
async fn directed(
    State(api): State<Arc<Api>>,
    connection: Option<Extension<Connection>>,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    let asked = api.names.asked_for(request.uri(), request.headers())?;
    match connection.and_then(|it| it.0.server_name) {
        Some(name) if !name.eq_ignore_ascii_case(asked) => Err(Error::Misdirected),
        _ => Ok(next.run(request).await),
    }
}
// ANCHOR_END: directed

/// On every answer, also on errors. Never over plain HTTP, where anybody could have written it: RFC 6797, section 7.2.
async fn strict_transport(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, api.hsts.clone());
    response
}
