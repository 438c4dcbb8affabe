//! How does everyone have queues of their own? By a prefix that nobody else has.
//!
//! AMQP cannot list queues, so their names have to be told to be deleted: see [`Queues::expect`]. A process that
//! is killed leaves its queues behind; they are empty words to everybody else.

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

use crate::{Service, farewell::farewell, stack};

/// A prefix for the queues and exchanges of one test or one experiment.
#[derive(Debug)]
pub struct Queues {
    prefix: String,
    url: String,
    names: Vec<String>,
    exchanges: Vec<String>,
}

impl Queues {
    /// A prefix on the shared server.
    pub async fn fresh(answer: &str) -> anyhow::Result<Self> {
        Ok(Self::fresh_on(&stack::server(Service::RabbitMq).await?.url, answer))
    }

    /// The same, on a server of the experiment's own.
    pub fn fresh_on(url: &str, answer: &str) -> Self {
        let prefix = format!("lab.{answer}.{:016x}", rand::random::<u64>());
        Self { prefix, url: url.to_owned(), names: Vec::new(), exchanges: Vec::new() }
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
        Ok(Connection::connect(&self.url, ConnectionProperties::default()).await?)
    }

    /// These are deleted when this value is dropped. They need not be there.
    pub fn expect(
        &mut self,
        queues: impl IntoIterator<Item = String>,
        exchanges: impl IntoIterator<Item = String>,
    ) {
        self.names.extend(queues);
        self.exchanges.extend(exchanges);
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        if self.names.is_empty() && self.exchanges.is_empty() {
            return;
        }
        let (queues, exchanges) =
            (std::mem::take(&mut self.names), std::mem::take(&mut self.exchanges));
        let url = self.url.clone();
        farewell(&self.prefix, async move {
            let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            // Exchanges first, so that nothing is routed into what is being deleted.
            for exchange in exchanges {
                channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
            }
            for queue in queues {
                channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
            }
            Ok(connection.close(200, "goodbye".into()).await?)
        });
    }
}
