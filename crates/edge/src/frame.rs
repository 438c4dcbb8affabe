//! What surrounds every call of a service? A time-out, and an answer even when the handler panics.

use std::{any::Any, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use tracing::{Span, debug_span};

use crate::{json::Json, problem::Problem};

/// Adds to these calls what each service needs: `GET /healthz`, 404 and 405, a time limit, a size limit, a line in the
/// log, and an answer even when a handler panics. `longest` limits the time of a request with its answer, and `largest`
/// the size of its body in bytes.
pub fn framed<S: Clone + Send + Sync + 'static>(
    calls: Router<S>,
    longest: Duration,
    largest: usize,
) -> Router<S> {
    calls
        .route("/healthz", get(alive))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(longest, in_time))
        .layer(DefaultBodyLimit::max(largest))
        // The code that knows the cause of a failure logs it.
        .layer(TraceLayer::new_for_http().make_span_with(span).on_failure(()))
        .layer(CatchPanicLayer::custom(panicked))
}

/// What the log says of a request. Not its query: clients put tokens and passwords there.
fn span(request: &Request) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    debug_span!("request", %method, path, version = ?request.version())
}

/// `GET /healthz`: the process is alive. It asks no database, so it says nothing about one.
#[allow(clippy::unused_async, reason = "handlers are")]
pub async fn alive() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// 404, for a path that the service does not have.
#[allow(clippy::unused_async, reason = "handlers are")]
pub async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing here")
}

/// 405. axum adds `Allow`.
#[allow(clippy::unused_async, reason = "handlers are")]
pub async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
}

/// 503 for a request that takes longer: `layer(from_fn_with_state(TIMEOUT, in_time))`. Not 408, which says that the
/// *client* was too slow and lets it send the same request again at once. A request that ran out of time may or may not
/// have taken effect.
pub async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this took too long; try again")
            .retry_after(Duration::from_secs(1))
            .into_response(),
    }
}

/// 500 for a handler that panicked: `layer(CatchPanicLayer::custom(panicked))`. The panic hook has logged the message;
/// the client does not see it.
pub fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked: answered 500");
    Problem::internal().into_response()
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use axum::{body::Body, routing::post};
    use tower::ServiceExt;
    use tracing::Level;

    use super::*;

    async fn ask(method: &str, path: &str) -> Response {
        let panics = async || -> () { panic!("as a test wants it") };
        let calls = Router::new()
            .route("/slow", get(std::future::pending::<()>))
            .route("/panics", get(panics))
            .route("/reads", post(async |body: String| body));
        let router = framed(calls, Duration::from_millis(10), 100);
        let body = Body::from("x".repeat(if method == "POST" { 101 } else { 0 }));
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        router.oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn our_own_slowness_is_503_and_never_408() {
        let response = ask("GET", "/slow").await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(ask("GET", "/healthz").await.status(), 200);
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_which_are_right() {
        let response = ask("POST", "/healthz").await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "GET,HEAD");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }

    #[tokio::test]
    async fn the_log_has_the_path_of_a_request_and_not_its_query() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false);
        let writer = Arc::clone(&log);
        let lines = lines.with_writer(move || Lines(Arc::clone(&writer))).finish();
        let _logging = tracing::subscriber::set_default(lines);
        assert_eq!(ask("GET", "/healthz?token=hunter2").await.status(), 200);
        let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        assert!(log.contains("/healthz") && log.contains("status=200"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }

    /// Where a test's log goes.
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_breaks_has_an_answer_too() {
        for (method, path, status) in
            [("GET", "/nowhere", 404), ("GET", "/panics", 500), ("POST", "/reads", 413)]
        {
            assert_eq!(ask(method, path).await.status(), status, "{path}");
        }
    }
}
