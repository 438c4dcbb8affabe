//! How does an experiment have an exchange and queues of its own? By a prefix, and it takes them away in the end.

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

use crate::choreography::reactions::Service;

/// A prefix that nobody else has.
#[derive(Debug)]
pub struct Queues {
    amqp: String,
    prefix: String,
}

impl Queues {
    /// On this broker.
    pub fn fresh(amqp: &str) -> Self {
        Self { amqp: amqp.to_owned(), prefix: format!("lab.saga.{:016x}.", rand::random::<u64>()) }
    }

    /// What their names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        let (amqp, prefix) = (self.amqp.clone(), self.prefix.clone());
        // On a thread of its own, so that it is done also where no runtime runs any more.
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::time::timeout(std::time::Duration::from_secs(5), delete(amqp, prefix))
                    .await?
            })
        });
        if let Ok(Err(error)) = thread.join() {
            let error: anyhow::Error = error;
            tracing::debug!(%error, "queues were left behind");
        }
    }
}

async fn delete(amqp: String, prefix: String) -> anyhow::Result<()> {
    let connection = Connection::connect(&amqp, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for service in Service::ALL {
        let name = format!("{prefix}{}", service.name());
        channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    let name = format!("{prefix}events");
    channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await?;
    connection.close(200, "goodbye".into()).await?;
    Ok(())
}
