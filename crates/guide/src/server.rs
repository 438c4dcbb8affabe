//! Who may use the guide? A user of this machine, but no other web page in that user's browser.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use crate::{
    book::Book,
    mode::Mode,
    problem::problem,
    runs::{self, Runs},
    shelf::Shelf,
};

/// Everything that the guide serves. `port` is where it listens.
pub fn router(shelf: Arc<Shelf>, runs: Runs, port: u16) -> Router {
    Router::new()
        .route("/api/stack", get(async || Json(lab::stack::status().await)))
        .route("/api/running", get(runs::running).with_state(runs.clone()))
        .route("/api/experiments/{answer}/{name}", post(runs::run).with_state(runs))
        .route("/", get(home).with_state(shelf.clone()))
        .route("/{*path}", get(file).with_state(shelf))
        .layer(middleware::from_fn(move |request, next| guard(request, next, port)))
}

async fn home(State(shelf): State<Arc<Shelf>>) -> Response {
    show(&*shelf.book().await, "index.html")
}

async fn file(State(shelf): State<Arc<Shelf>>, Path(path): Path<String>) -> Response {
    show(&*shelf.book().await, &path)
}

fn show(book: &Book, path: &str) -> Response {
    let (status, kind, file) = if let Some(file) = book.file(path, Mode::Live) {
        (StatusCode::OK, content_type(path), file)
    } else {
        let page = book.file("404.html", Mode::Live).unwrap_or_default();
        (StatusCode::NOT_FOUND, content_type("404.html"), page)
    };
    let policy = content_security_policy(book);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (status, headers, file).into_response()
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => "text/plain; charset=utf-8",
    }
}

/// Refuses requests that do not come from our own pages, and forbids our pages to load anything from elsewhere.
///
/// `Host` reveals a name that an attacker points at 127.0.0.1 (DNS rebinding). `Origin`, which every browser sends with
/// a POST, reveals a page elsewhere that posts here.
async fn guard(request: Request, next: Next, port: u16) -> Response {
    let host = text(request.headers(), &header::HOST).filter(|host| is_ours(host, port));
    let Some(host) = host else {
        return problem(StatusCode::FORBIDDEN, "this guide is served at 127.0.0.1 only");
    };
    let origin = text(request.headers(), &header::ORIGIN);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && origin != Some(&format!("http://{host}")) {
        return problem(StatusCode::FORBIDDEN, "only the guide's own pages run experiments");
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // A response that is not a page may load nothing at all.
    let nothing = HeaderValue::from_static("default-src 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Results change from run to run.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Whether this is the guide's own host. A browser leaves out port 80.
fn is_ours(host: &str, port: u16) -> bool {
    ["127.0.0.1", "localhost"]
        .into_iter()
        .any(|name| host == format!("{name}:{port}") || (port == 80 && host == name))
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Allows two kinds of scripts: our own files, and the few lines that mdBook writes into each page, by their hashes.
fn content_security_policy(book: &Book) -> HeaderValue {
    let policy = format!(
        "default-src 'self'; script-src 'self' {}; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; \
         frame-ancestors 'self'",
        book.inline_scripts
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}
