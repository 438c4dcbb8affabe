//! How long may a request take? When its time is over its future is dropped: the handler stops at its next `await`,
//! whatever it had half done.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use edge::Problem;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tower::{Service, layer::layer_fn};

use crate::layer::{Form, Inner, around};

/// The layer, written in one of our two ways.
pub fn layer(form: Form, limit: Duration, inner: Inner) -> Inner {
    match form {
        Form::FromFn => around(&from_fn_with_state(limit, in_time), inner),
        _ => around(&layer_fn(|inner| InTimeService { limit, inner }), inner),
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

/// By hand.
#[derive(Clone, Debug)]
struct InTimeService {
    limit: Duration,
    inner: Inner,
}

impl Service<Request> for InTimeService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    // ANCHOR: call
    fn call(&mut self, request: Request) -> Self::Future {
        let next = timeout(self.limit, self.inner.call(request));
        Box::pin(async { next.await.unwrap_or_else(|_| Ok(too_slow())) })
    }
    // ANCHOR_END: call
}
