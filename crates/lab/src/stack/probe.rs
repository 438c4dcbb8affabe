//! Does a server answer, and which version is it? We ask over its own protocol.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::service::Service;

/// A server on loopback that takes longer than this is too slow to use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects, logs in and disconnects.
pub async fn answers(service: Service, url: &str) -> anyhow::Result<()> {
    let greeting = timeout(PATIENCE, (service.about().greet)(url));
    greeting.await.with_context(|| format!("{service} took more than five seconds to answer"))?
}

/// The server's name and version.
pub async fn version(service: Service, url: &str) -> anyhow::Result<String> {
    let version = timeout(PATIENCE, (service.about().version)(url)).await;
    let version = version.with_context(|| format!("{service} did not tell its version"))??;
    Ok(format!("{service} {version}"))
}
