//! What was asked, what was answered, and how long did it take? The log of the question's usual snippet, with the answer in
//! it.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::http::{self, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::{body::Body, extract::Request, response::Response};
use futures_util::future::BoxFuture;
use tower::{Layer, Service};
use tower_http::trace::TraceLayer;
use tracing::{Instrument, Span, field::Empty, info, info_span};

use crate::layer::{Form, Inner, around};
use crate::request_id::id;

/// The layer in one of its three forms.
pub fn layer(form: Form, inner: Inner) -> Inner {
    match form {
        Form::FromFn => around(&from_fn(timed), inner),
        Form::ByHand => around(&Timed, inner),
        Form::Library => around(
            &TraceLayer::new_for_http()
                .make_span_with(span)
                .on_request(())
                .on_response(|response: &http::Response<_>, took: Duration, _: &Span| {
                    line(response.status(), took);
                })
                .on_failure(()),
            inner,
        ),
    }
}

// ANCHOR: span
/// All log lines that are written within the request name it. The query is left out: people put secrets there.
fn span(request: &http::Request<Body>) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    info_span!("request", id = id(request.extensions()), %method, path, user = Empty)
}
// ANCHOR_END: span

fn line(status: StatusCode, took: Duration) {
    info!(status = status.as_u16(), ms = took.as_secs_f64() * 1e3, "answered");
}

// ANCHOR: from_fn
async fn timed(request: Request, next: Next) -> Response {
    let (begun, span) = (Instant::now(), span(&request));
    async {
        let response = next.run(request).await;
        line(response.status(), begun.elapsed());
        response
    }
    .instrument(span)
    .await
}
// ANCHOR_END: from_fn

/// By hand: makes a [`TimedService`] of any service.
#[derive(Clone, Copy, Debug)]
struct Timed;

#[derive(Clone, Debug)]
struct TimedService<S>(S);

impl<S> Layer<S> for Timed {
    type Service = TimedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimedService(inner)
    }
}

impl<S> Service<Request> for TimedService<S>
where
    S: Service<Request, Response = Response, Future: Send + 'static>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (begun, span) = (Instant::now(), span(&request));
        // A layer inside may log before it returns its future.
        let next = span.in_scope(|| self.0.call(request));
        let answered = async move {
            let response = next.await?;
            line(response.status(), begun.elapsed());
            Ok(response)
        };
        Box::pin(answered.instrument(span))
    }
}
