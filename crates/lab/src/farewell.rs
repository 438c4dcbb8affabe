//! How can `drop` run async code? It starts a thread with a runtime of its own, and waits for that thread.

use std::time::Duration;

/// Runs the work to its end, for at most five seconds. If it fails, the next process cleans up.
pub(crate) fn farewell(
    what: &str,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    let thread = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), work).await? })
    });
    if let Ok(Err(error)) = thread.join() {
        tracing::debug!(%error, what, "not cleaned up yet");
    }
}
