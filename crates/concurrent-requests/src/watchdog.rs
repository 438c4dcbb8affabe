//! Which handler blocks its thread? The one whose future does not come back from a poll.

use std::{
    future::poll_fn,
    pin::pin,
    time::{Duration, Instant},
};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

// ANCHOR: watched
/// Logs each poll of a handler that takes longer. Between two polls a future waits and costs nothing. Within one it holds
/// its thread, and all requests on that thread wait.
pub async fn watched(State(longest): State<Duration>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut answer = pin!(next.run(request));
    poll_fn(|context| {
        let begun = Instant::now();
        let polled = answer.as_mut().poll(context);
        let held = begun.elapsed();
        if held >= longest {
            let route = route.as_ref().map_or("?", MatchedPath::as_str);
            tracing::warn!(?held, "{method} {route} held its thread");
        }
        polled
    })
    .await
}
// ANCHOR_END: watched
