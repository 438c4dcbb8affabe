//! How long may a request take? When its time is over its future is dropped: the handler stops at its next `await`,
//! whatever it had half done.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use edge::Problem;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tower::{Layer, Service};
use tower_http::timeout::TimeoutLayer;

use crate::layer::{Form, Inner, around, with_problems};

/// The layer in one of its three forms.
pub fn layer(form: Form, limit: Duration, inner: Inner) -> Inner {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    match form {
        Form::FromFn => around(&from_fn_with_state(limit, in_time), inner),
        Form::ByHand => around(&InTime(limit), inner),
        Form::Library => {
            with_problems(around(&TimeoutLayer::with_status_code(status, limit), inner))
        }
    }
}

/// 503, and not 408: it is us who were too slow.
fn too_slow() -> Response {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this took too long; try again");
    problem.retry_after(Duration::from_secs(1)).into_response()
}

// ANCHOR: from_fn
async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    timeout(limit, next.run(request)).await.unwrap_or_else(|_| too_slow())
}
// ANCHOR_END: from_fn

/// By hand: makes an [`InTimeService`] of any service.
#[derive(Clone, Copy, Debug)]
struct InTime(Duration);

#[derive(Clone, Debug)]
struct InTimeService<S> {
    limit: Duration,
    inner: S,
}

impl<S> Layer<S> for InTime {
    type Service = InTimeService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        InTimeService { limit: self.0, inner }
    }
}

impl<S> Service<Request> for InTimeService<S>
where
    S: Service<Request, Response = Response, Future: Send + 'static>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    // ANCHOR: call
    fn call(&mut self, request: Request) -> Self::Future {
        let next = timeout(self.limit, self.inner.call(request));
        Box::pin(async { next.await.unwrap_or_else(|_| Ok(too_slow())) })
    }
    // ANCHOR_END: call
}
