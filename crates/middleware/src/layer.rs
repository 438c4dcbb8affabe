//! What is a layer? Something that takes a service and gives back another one. It has the request before the service
//! inside it does, and the answer after it.
//!
//! It has to give an answer of its own or that of the next one. A layer that forgets both has nothing to return:
//!
//! ```compile_fail,E0308
//! use axum::{extract::Request, middleware::Next, response::Response};
//!
//! async fn forgets(request: Request, next: Next) -> Response {
//!     println!("{}", request.method());
//! }
//! ```
//!
//! And nobody can call it twice, since `run` takes it:
//!
//! ```compile_fail,E0382
//! use axum::{extract::Request, middleware::Next, response::Response};
//!
//! async fn twice(request: Request, next: Next) -> Response {
//!     next.run(Request::default()).await;
//!     next.run(request).await
//! }
//! ```
//!
//! With `next` it compiles:
//!
//! ```
//! use axum::{extract::Request, middleware::Next, response::Response};
//!
//! async fn calls(request: Request, next: Next) -> Response {
//!     println!("{}", request.method());
//!     next.run(request).await
//! }
//! ```

use std::{convert::Infallible, fmt, time::Duration};

use axum::extract::Request;
use axum::http::{StatusCode, header::CONTENT_LENGTH, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use clap::ValueEnum;
use edge::Problem;
use serde::Serialize;
use tower::{Layer, Service, ServiceExt, util::BoxCloneSyncService};

/// A service with any number of layers around it. All of them have this one type, so a list of names can decide the order.
pub type Inner = BoxCloneSyncService<Request, Response, Infallible>;

/// A layer. They are listed from the outside in, in the order that breaks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Gives each request an id, and names it in the answer
    RequestId,
    /// Finds the client's address behind a proxy
    ClientAddress,
    /// Logs each request with its answer
    Trace,
    /// Counts requests
    Metrics,
    /// Lets pages of other origins ask
    Cors,
    /// Makes a 500 of a panic
    CatchPanic,
    /// Hashes the answer
    Digest,
    /// Compresses the answer
    Compress,
    /// Gives up on what takes too long
    Timeout,
    /// Limits the requests at the same time; further ones wait
    ConcurrencyLimit,
    /// Refuses a client that asks too often
    RateLimit,
    /// Refuses a body that is too long
    BodyLimit,
    /// Wants a key for the notes
    Auth,
    /// Checks the signature of a body, for which it keeps all of it
    Signature,
    /// Checks it while it passes
    SignatureStream,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// Three ways to write the same layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A function with `next`, as in Express: `axum::middleware::from_fn`
    FromFn,
    /// A `tower::Layer` and a `tower::Service`, written out
    #[default]
    ByHand,
    /// What tower-http has
    Library,
}

// ANCHOR: around
/// Puts a layer around a service.
pub fn around<L>(layer: &L, inner: Inner) -> Inner
where
    L: Layer<Inner>,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    Inner::new(layer.layer(inner).map_response(IntoResponse::into_response))
}
// ANCHOR_END: around

// ANCHOR: problems
/// Libraries answer in words of their own, or without any. Their errors become problem documents, like ours, and keep
/// their other headers.
pub fn with_problems(inner: Inner) -> Inner {
    Inner::new(inner.map_response(|mut response: Response| {
        let status = response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        let kind = response.headers().get(CONTENT_TYPE);
        if !is_error || kind.is_some_and(|kind| kind == "application/problem+json") {
            return response;
        }
        let problem = Problem::new(status, status.canonical_reason().unwrap_or("it was refused"));
        // Our own slowness passes.
        let again = status == StatusCode::SERVICE_UNAVAILABLE;
        let problem = if again { problem.retry_after(Duration::from_secs(1)) } else { problem };
        let (parts, body) = problem.into_response().into_parts();
        response.headers_mut().remove(CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
        response.map(|_| body)
    }))
}
// ANCHOR_END: problems

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, body::to_bytes, routing::get};

    use super::*;

    #[tokio::test]
    async fn an_error_of_a_library_becomes_a_problem_and_keeps_its_headers() {
        let busy = (StatusCode::SERVICE_UNAVAILABLE, [("via", "a")], "the text of a library");
        let service = with_problems(Inner::new(Router::new().route("/", get(async move || busy))));
        let answer = service.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), 503);
        let headers = [("content-type", "application/problem+json"), ("retry-after", "1")];
        for (name, value) in headers.into_iter().chain([("via", "a")]) {
            assert_eq!(answer.headers()[name], value);
        }
        let length = answer.headers().get(CONTENT_LENGTH).cloned();
        let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
        assert!(
            body.starts_with(b"{") && length.is_none_or(|it| it == body.len().to_string().as_str())
        );
    }
}
