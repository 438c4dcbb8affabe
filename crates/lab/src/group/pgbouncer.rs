//! A PgBouncer of the experiment's own, in front of any PostgreSQL.

use anyhow::Context;

use crate::stack::{Service, own::OwnServer};

/// A pooler. It ends when this is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    /// The server itself, to be killed, paused and started again.
    pub server: OwnServer,
}

impl PgBouncer {
    /// Starts one in front of the PostgreSQL of this URL. Clients log in with the user and the password in it. The
    /// settings are PgBouncer's, such as `("pool_mode", "session")`; unless they say otherwise, it pools transactions.
    pub async fn in_front_of(postgres: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut server = OwnServer::prepare(Service::PgBouncer).await?;
        server.home().write("upstream", postgres)?;
        let settings: String =
            settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        server.home().write("settings", &settings)?;
        server.restart().await.context("PgBouncer")?;
        Ok(Self { server })
    }

    /// The same database, through the pooler.
    pub fn url(&self) -> anyhow::Result<String> {
        self.server.url()
    }
}
