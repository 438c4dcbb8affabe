//! What must process number one do that no other process has to?
//!
//! The kernel gives every orphan to process number one of its namespace, and expects it to collect the orphan's exit
//! status. A process whose status nobody collects is a zombie: it has no memory any more, but it keeps its number, and a
//! container may have only so many.

use std::{convert::Infallible, future::pending};

use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Collects orphans for as long as this is polled, if this process is number one. Elsewhere the system's own init does it.
pub async fn reap_orphans() -> Infallible {
    if std::process::id() == 1 {
        match signal(SignalKind::child()) {
            Ok(mut ended) => {
                while ended.recv().await.is_some() {
                    collect();
                }
            }
            Err(error) => tracing::warn!(%error, "orphans will stay as zombies"),
        }
    }
    pending().await
}

// ANCHOR: collect
/// Collects every child that has ended. One signal may stand for many of them: signals of the same kind are not queued.
fn collect() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
// ANCHOR_END: collect
