//! How long may it take until the answer begins? When the time is over the request's future is dropped: the handler stops
//! at its next `await`, whatever it had half done. The body of the answer may take longer, a stream for example.

use std::task::{Context, Poll};
use std::{convert::Infallible, time::Duration};

use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{extract::Request, extract::State, http::StatusCode};
use edge::Problem;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tower::{Service, ServiceExt, layer::layer_fn};

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
    let words = "this took too long; it may have been done";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, words);
    problem.retry_after(Duration::from_secs(1)).into_response()
}

// ANCHOR: from_fn
/// `next` is ready already, so a wait for that is not limited.
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

    /// Always, so that what is inside is waited for within the time limit.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    // ANCHOR: call
    fn call(&mut self, request: Request) -> Self::Future {
        let next = timeout(self.limit, self.inner.clone().oneshot(request));
        Box::pin(async { next.await.unwrap_or_else(|_| Ok(too_slow())) })
    }
    // ANCHOR_END: call
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::{Router, body::Body, routing::get};
    use tower::limit::ConcurrencyLimitLayer;

    use super::*;

    #[tokio::test]
    async fn by_hand_the_wait_for_a_turn_is_limited_too() {
        let calls = Router::new().route("/", get(pending::<StatusCode>));
        let one_at_a_time = around(&ConcurrencyLimitLayer::new(1), Inner::new(calls));
        let request = || Request::new(Body::empty());
        let first = tokio::spawn(one_at_a_time.clone().oneshot(request()));
        tokio::task::yield_now().await;
        let service = layer(Form::ByHand, Duration::from_millis(20), one_at_a_time);
        let second = timeout(Duration::from_secs(20), service.oneshot(request())).await;
        assert_eq!(second.unwrap().unwrap().status(), 503);
        assert!(!first.is_finished());
    }
}
