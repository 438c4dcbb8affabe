//! Does a server answer, and which version is it? We ask over its own protocol.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::service::Service;

/// A server on loopback that takes longer than this is too slow to use. Under heavy load, a first connection to
/// PostgreSQL was seen to take more than five seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Connects, logs in and disconnects.
pub async fn answers(service: Service, url: &str) -> anyhow::Result<()> {
    let greeting = timeout(PATIENCE, (service.about().greet)(url));
    greeting.await.with_context(|| format!("{service} took more than {PATIENCE:?} to answer"))?
}

/// The server's name and version.
pub async fn version(service: Service, url: &str) -> anyhow::Result<String> {
    let version = timeout(PATIENCE, (service.about().version)(url)).await;
    let version = version.with_context(|| format!("{service} did not tell its version"))??;
    Ok(format!("{service} {version}"))
}
