//! How does an experiment have an exchange and queues of its own? By a prefix, and they go with this value.

use crate::choreography::reactions::Service;

/// A prefix that nobody else has.
#[derive(Debug)]
pub struct Queues {
    prefix: String,
    /// Deletes them in the end.
    _queues: lab::queues::Queues,
}

impl Queues {
    /// On the shared broker.
    pub async fn fresh() -> anyhow::Result<Self> {
        let mut queues = lab::queues::Queues::fresh("saga-orchestrator").await?;
        let prefix = format!("{}.", queues.prefix());
        let names = Service::ALL.map(|service| format!("{prefix}{}", service.name()));
        queues.expect(names, [format!("{prefix}events")])?;
        Ok(Self { prefix, _queues: queues })
    }

    /// What their names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}
