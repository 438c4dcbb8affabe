//! What happens to work that nobody waits for any more? It is dropped, unless it is asked to finish.
//!
//! When a client closes its connection, hyper drops the handler's future: it leaves the queue, or stops at its next
//! `await`. A statement that is under way then has no reader, and `edge` closes its connection, which PostgreSQL takes for
//! a rollback. So a handler may be dropped at any `await` if what it does is one transaction.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::Error;

// ANCHOR: finished
/// Lets a request finish although its client has gone, in a task that nobody has to wait for. Also what one gets unasked
/// behind a proxy that does not hand the end of a connection on.
pub async fn finished(request: Request, next: Next) -> Response {
    let work = tokio::spawn(next.run(request));
    work.await.unwrap_or_else(|error| Error::Internal(Arc::new(error)).into_response())
}
// ANCHOR_END: finished
