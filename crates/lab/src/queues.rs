//! How does each test and experiment get queues of its own? By a prefix that nobody else has.
//!
//! AMQP cannot list queues, so the names must be given before the queues are declared: see [`Queues::expect`].
//!
//! Invariant: a queue or an exchange is deleted only if its whole name was written down (see `claim`), and begins with
//! a prefix of ours with sixteen random digits. Its owner deletes it, or the next process of this workspace if the
//! owner was killed.

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::{
    Service,
    claim::{Claim, is_sixteen_digits, left_behind},
    farewell::farewell,
    stack,
};

/// What every name of this project begins with.
const OURS: &str = "worked-answers.";

/// A prefix for the queues and exchanges of one test or one experiment.
#[derive(Debug)]
pub struct Queues {
    prefix: String,
    url: String,
    names: Names,
    claim: Option<Claim>,
}

/// The names to delete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Names {
    queues: Vec<String>,
    exchanges: Vec<String>,
}

impl Queues {
    /// A prefix on the shared server.
    pub async fn fresh(answer: &str) -> anyhow::Result<Self> {
        let url = stack::server(Service::RabbitMq).await?.url;
        static CLEAN: OnceCell<()> = OnceCell::const_new();
        CLEAN.get_or_try_init(|| clean(&url)).await?;
        Ok(Self::fresh_on(&url, answer))
    }

    /// The same, on a server of the experiment's own: `worked-answers.<answer>.<16 hexadecimal digits>`.
    pub fn fresh_on(url: &str, answer: &str) -> Self {
        let prefix = format!("{OURS}{answer}.{:016x}", rand::random::<u64>());
        Self { prefix, url: url.to_owned(), names: Names::default(), claim: None }
    }

    /// What every name begins with; no dot at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection to it.
    pub async fn connection(&self) -> anyhow::Result<Connection> {
        connect(&self.url).await
    }

    /// Deletes these when this value is dropped. They need not exist yet, and each name must begin with the prefix.
    pub fn expect(
        &mut self,
        queues: impl IntoIterator<Item = String>,
        exchanges: impl IntoIterator<Item = String>,
    ) -> anyhow::Result<()> {
        self.names.queues.extend(queues);
        self.names.exchanges.extend(exchanges);
        match &mut self.claim {
            Some(claim) => claim.amend(&self.names)?,
            None => self.claim = Some(Claim::stake(Service::RabbitMq, &self.url, &self.names)?),
        }
        Ok(())
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let (names, url) = (std::mem::take(&mut self.names), self.url.clone());
        farewell(&self.prefix, async move {
            delete(&url, names).await?;
            claim.release();
            Ok(())
        });
    }
}

/// Deletes the queues and exchanges that killed processes left.
async fn clean(url: &str) -> anyhow::Result<()> {
    for (claim, names) in left_behind::<Names>(Service::RabbitMq, url)? {
        match delete(url, names).await {
            Ok(()) => claim.release(),
            Err(error) => tracing::warn!(%error, "cannot delete the queues of a killed run"),
        }
    }
    Ok(())
}

async fn delete(url: &str, names: Names) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    // Exchanges first, so that no message is routed into a queue that is being deleted. A missing one is not an error.
    for exchange in names.exchanges.into_iter().filter(|name| is_random(name)) {
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
    }
    for queue in names.queues.into_iter().filter(|name| is_random(name)) {
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    Ok(connection.close(200, "goodbye".into()).await?)
}

/// Whether a name begins with a whole prefix of ours.
fn is_random(name: &str) -> bool {
    let mut parts = name.strip_prefix(OURS).unwrap_or_default().split('.');
    let (_answer, digits) = (parts.next(), parts.next().unwrap_or_default());
    is_sixteen_digits(digits)
}

async fn connect(url: &str) -> anyhow::Result<Connection> {
    Ok(Connection::connect(url, ConnectionProperties::default()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_with_a_whole_prefix_is_ours() {
        let prefix = Queues::fresh_on("amqp://nowhere/", "notification-worker").prefix.clone();
        assert!(is_random(&prefix));
        assert!(is_random(&format!("{prefix}.0.high")));
        for name in [
            "",
            "worked-answers.",
            "worked-answers.notification-worker",
            "worked-answers.notification-worker.dead",
            "worked-answers.notification-worker.0123456789abcde",
            "worked-answers.notification-worker.0123456789abcdef0.dead",
            "worked-answers.notification-worker.0123456789ABCDEF.dead",
            "lab.notification-worker.0123456789abcdef.dead",
        ] {
            assert!(!is_random(name), "{name:?}");
        }
    }
}
