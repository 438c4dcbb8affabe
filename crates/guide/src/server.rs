//! Who may use the guide? A user of this machine, but no other web page in that user's browser.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use lab::report::escaped;
use serde::Deserialize;

use crate::{
    book::{Book, CONTENTS},
    forms::{self, Fields},
    interview_page, live,
    mode::Mode,
    problem::problem,
    quiz_page::{self, Shown},
    reader::Reader,
    runs::{self, Runs},
    shelf::Shelf,
    stories_page,
};

/// How long the body of a request may be, in bytes.
const LIMIT: usize = 2_000_000;

/// What the pages are made from.
#[derive(Clone, Debug)]
struct Site {
    shelf: Arc<Shelf>,
    reader: Reader,
    runs: Runs,
}

/// Everything that the guide serves. `port` is where it listens.
pub fn router(shelf: Arc<Shelf>, runs: Runs, reader: Reader, port: u16) -> Router {
    let site = Site { shelf, reader, runs: runs.clone() };
    Router::new()
        .route("/api/stack", get(async || Json(lab::stack::status().await)))
        .route("/api/running", get(runs::running).with_state(runs.clone()))
        .route("/api/experiments/{answer}/{name}", post(runs::run).with_state(runs))
        .route("/api/book", get(number))
        .route("/api/read/{answer}", post(read))
        .route("/api/open", post(open))
        .route("/progress/export.json", get(progress))
        .route("/progress/import", post(import))
        .route("/interview", post(interview).get(async || Redirect::to("/interview.html")))
        .route("/interview/export.md", get(export))
        .route("/quiz", post(quiz).get(async || Redirect::to("/quiz.html")))
        .route("/stories", post(stories).get(async || Redirect::to("/stories.html")))
        .route("/", get(home))
        .route("/{*path}", get(file))
        .with_state(site)
        .layer(DefaultBodyLimit::max(LIMIT))
        .layer(middleware::from_fn(move |request, next| guard(request, next, port)))
}

async fn home(State(site): State<Site>) -> Response {
    show(&site, "index.html", None).await
}

async fn file(
    State(site): State<Site>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    show(&site, &path, query.as_deref()).await
}

async fn interview(State(site): State<Site>, body: Bytes) -> Response {
    let subjects = &site.shelf.book().await.subjects;
    forms::interview(&site.reader, subjects, &Fields::parse(&body), interview::now())
}

async fn quiz(State(site): State<Site>, body: Bytes) -> Response {
    let subjects = &site.shelf.book().await.subjects;
    forms::quiz(&site.reader, subjects, &Fields::parse(&body), interview::now())
}

async fn stories(State(site): State<Site>, body: Bytes) -> Response {
    forms::stories(&site.reader, &Fields::parse(&body))
}

async fn read(State(site): State<Site>, Path(answer): Path<String>) -> Response {
    forms::read(&site.reader, &site.shelf.book().await.subjects, &answer)
}

async fn number(State(site): State<Site>) -> Json<u64> {
    // To look at all sources would disturb what is being measured.
    if !site.runs.is_running() {
        site.shelf.book().await;
    }
    Json(site.shelf.number())
}

async fn export(State(site): State<Site>) -> Response {
    forms::exported(&site.reader)
}

async fn progress(State(site): State<Site>) -> Response {
    forms::progress(&site.reader)
}

async fn import(State(site): State<Site>, body: String) -> Response {
    forms::import(&site.reader, &body)
}

/// A place in a file of this workspace.
#[derive(Debug, Deserialize)]
struct Place {
    path: String,
    line: usize,
}

/// Opens a listing in the reader's editor. Only a file that the book shows.
async fn open(State(site): State<Site>, Json(place): Json<Place>) -> Response {
    let Some(editor) = site.reader.editor() else {
        return problem(StatusCode::NOT_FOUND, "$VISUAL and $EDITOR name no editor with a window");
    };
    if !site.shelf.book().await.listed.contains(&place.path) {
        return problem(StatusCode::NOT_FOUND, "the book does not show this file");
    }
    match editor.open(&practice::workspace().join(place.path), place.line) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

/// A page with what depends on its reader.
fn of_reader(page: Vec<u8>, path: &str, query: &str, book: &Book, reader: &Reader) -> Vec<u8> {
    let (now, query) = (interview::now(), Fields::parse(query.as_bytes()));
    let with_buttons = |page: Vec<u8>| match reader.editor() {
        Some(editor) => {
            live::with_buttons(&String::from_utf8_lossy(&page), &editor.name()).into_bytes()
        }
        None => page,
    };
    let element = match path {
        "index.html" => CONTENTS,
        "interview.html" => "<mock-interview></mock-interview>",
        "quiz.html" => "<verdict-quiz></verdict-quiz>",
        "stories.html" => "<star-stories></star-stories>",
        _ => return with_buttons(page),
    };
    let made = forms::come_back(reader, now).and_then(|progress| {
        let subjects = &book.subjects;
        Ok(match path {
            "index.html" => book.contents(reader)?,
            "interview.html" => interview_page::html(subjects, &progress, &query, now),
            "quiz.html" => {
                let at = query.one("at").parse().ok();
                let shown = at.map(|at| Shown { answer: query.one("answer").to_owned(), at });
                book.with_experiments(&quiz_page::html(subjects, &progress, shown.as_ref(), now))
            }
            _ => stories_page::html(&progress, query.one("at").parse().ok()),
        })
    });
    // A broken progress is never overwritten; the page says what to do.
    let made = made.unwrap_or_else(|error| {
        format!("<p class=\"refused\" role=\"alert\">{}</p>", escaped(&format!("{error:#}")))
    });
    with_buttons(String::from_utf8_lossy(&page).replace(element, &made).into_bytes())
}

async fn show(site: &Site, path: &str, query: Option<&str>) -> Response {
    let book = &*site.shelf.book().await;
    let (status, kind, file) = if let Some(file) = book.file(path, Mode::Live) {
        let file = of_reader(file, path, query.unwrap_or_default(), book, &site.reader);
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
        return problem(StatusCode::FORBIDDEN, "only the guide's own pages may do this");
    }
    let mut response = next.run(request).await;
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let words = format!("this is too long: the guide takes {} MB at once", LIMIT / 1_000_000);
        response = problem(StatusCode::PAYLOAD_TOO_LARGE, &words);
    }
    let headers = response.headers_mut();
    // A response that is not a page may load nothing at all.
    let nothing = HeaderValue::from_static("default-src 'none'");
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(nothing);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    // With `no-referrer`, a browser would send forms with the origin `null`.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
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
         img-src 'self' data:; media-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; \
         frame-ancestors 'self'",
        book.inline_scripts
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}
