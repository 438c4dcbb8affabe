//! What was asked, what was answered, and how long did it take? The log of the question's usual snippet, with the answer in
//! it.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::middleware::{Next, from_fn};
use axum::{body::Body, extract::Request, http, response::Response};
use futures_util::future::BoxFuture;
use tower::{Service, layer::layer_fn};
use tracing::{Instrument, Span, field::Empty, info, info_span};

use crate::layer::{Form, Inner, around};
use crate::request_id::id;

/// The layer, written in one of our two ways.
pub fn layer(form: Form, inner: Inner) -> Inner {
    let by_hand = layer_fn(TimedService);
    if form == Form::FromFn { around(&from_fn(timed), inner) } else { around(&by_hand, inner) }
}

// ANCHOR: span
/// All log lines that are written within the request name it. The query is left out: people put secrets there.
pub fn span(request: &http::Request<Body>) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    info_span!("request", id = id(request.extensions()), %method, path, user = Empty)
}
// ANCHOR_END: span

/// After the answer.
pub fn line<B>(response: &http::Response<B>, took: Duration) {
    let (status, ms) = (response.status().as_u16(), took.as_secs_f64() * 1e3);
    info!(status, ms, "answered");
}

// ANCHOR: from_fn
async fn timed(request: Request, next: Next) -> Response {
    let (begun, span) = (Instant::now(), span(&request));
    async {
        let response = next.run(request).await;
        line(&response, begun.elapsed());
        response
    }
    .instrument(span)
    .await
}
// ANCHOR_END: from_fn

/// By hand.
#[derive(Clone, Debug)]
struct TimedService(Inner);

impl Service<Request> for TimedService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (begun, span) = (Instant::now(), span(&request));
        // A layer inside may log before it returns its future.
        let next = span.in_scope(|| self.0.call(request));
        let answered = async move {
            let response = next.await?;
            line(&response, begun.elapsed());
            Ok(response)
        };
        Box::pin(answered.instrument(span))
    }
}
