//! How does everyone have queues of their own? By a prefix that nobody else has.
//!
//! AMQP cannot list queues, so their names have to be told before they are declared: see [`Queues::expect`].
//!
//! Invariant: only queues and exchanges whose whole names were written down are deleted (see
//! `claim`), and only if the name begins with a prefix of sixteen random digits. They are
//! deleted by their owner, or by the next process of this workspace when their owner was killed.

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

/// What is to be deleted.
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

    /// These are deleted when this value is dropped. They need not be there yet, and each has to begin with the
    /// prefix.
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

/// Deletes what killed processes left.
async fn clean(url: &str) -> anyhow::Result<()> {
    for (claim, names) in left_behind::<Names>(Service::RabbitMq, url)? {
        match delete(url, names).await {
            Ok(()) => claim.release(),
            Err(error) => tracing::warn!(%error, "queues of a killed run stay"),
        }
    }
    Ok(())
}

async fn delete(url: &str, names: Names) -> anyhow::Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    // Exchanges first, so that nothing is routed into what is being deleted. What is not there is no error.
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
