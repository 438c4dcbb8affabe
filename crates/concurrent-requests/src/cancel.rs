//! What happens to work that nobody waits for any more? It is dropped, unless it is asked to finish.
//!
//! When a client closes its connection, hyper drops the handler's future: it leaves the queue, or stops at its next
//! `await`. PostgreSQL does not notice: it finishes the statement that it has, commits it, and finds out when it answers.
//! So a dropped order is whole or not there, nobody knows which, and its key finds out. Only a transaction of several
//! statements is rolled back.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::Error;

// ANCHOR: finished
/// Lets a request finish although its client has gone, in a task of its own. A proxy that hides a closed connection has the
/// same effect.
pub async fn finished(request: Request, next: Next) -> Response {
    let work = tokio::spawn(next.run(request));
    work.await.unwrap_or_else(|error| Error::Internal(Arc::new(error)).into_response())
}
// ANCHOR_END: finished
