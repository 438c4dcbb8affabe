//! How does a value that is dropped await? A thread does, with a runtime of its own, and we wait for it.

use std::time::Duration;

/// Runs the work to its end, or for five seconds. If it fails, whoever comes next cleans up.
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
