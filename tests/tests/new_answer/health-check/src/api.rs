//! What do the two calls answer?

use axum::{Router, routing::get};

// ANCHOR: router
/// The process is alive if it answers at all, and it needs no server to be ready.
pub fn router() -> Router {
    let fine = get(async || "ok\n");
    Router::new().route("/healthz", fine.clone()).route("/readyz", fine)
}
// ANCHOR_END: router
