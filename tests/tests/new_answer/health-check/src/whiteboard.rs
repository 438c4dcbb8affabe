//! The answer as written in the interview: the service answers, so it is alive.

use axum::{Router, routing::get};

/// One page, as every framework's first example has it.
pub fn router() -> Router {
    Router::new().route("/", get(async || "ok\n"))
}
