//! Does a server answer, and which version is it? Asked over its own protocol.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::service::Service;

/// A server on loopback that takes longer than this is not one that we could use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects, logs in, says goodbye.
pub async fn answers(service: Service, url: &str) -> anyhow::Result<()> {
    let greeting = timeout(PATIENCE, (service.about().greet)(url));
    greeting.await.context("it took more than five seconds")?
}

/// The server's name and version.
pub async fn version(service: Service, url: &str) -> anyhow::Result<String> {
    let version = timeout(PATIENCE, (service.about().version)(url)).await;
    let version = version.with_context(|| format!("{service} did not tell its version"))??;
    Ok(format!("{service} {version}"))
}
