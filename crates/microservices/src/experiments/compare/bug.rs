//! What may a bug in one module do to its process?
#![allow(clippy::unused_async, clippy::panic, reason = "handlers are, and bugs do")]

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, routing::post};
use edge::frame::panicked;
use tower_http::catch_panic::CatchPanicLayer;

/// Everything that was leaked.
type Leaked = Arc<Mutex<Vec<Vec<u8>>>>;

/// Calls that set off a bug.
pub fn router() -> Router {
    let leaked = Leaked::default();
    let leak = move || async move {
        // A cache whose entries nobody removes. All of it is written to, so that it needs real memory.
        let mut leaked = leaked.lock().unwrap_or_else(PoisonError::into_inner);
        leaked.push(vec![1; 4 << 20]);
        leaked.len().to_string()
    };
    Router::new()
        .route("/bug/leak", post(leak))
        .route("/bug/panic", post(panics))
        .route("/bug/abort", post(aborts))
        .layer(CatchPanicLayer::custom(panicked))
}

async fn panics() -> String {
    panic!("a bug in one module")
}

/// What `panic = "abort"` in the profile does: the hook says what happened, and the process ends.
async fn aborts() -> String {
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    panics().await
}
