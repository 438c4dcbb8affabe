//! How are access tokens taken back before they end? By asking Redis each time, which is what we wanted to be rid of.
//!
//! Invariant: with a deny-list, no token passes without having been looked up. While Redis is away none passes.

use std::{io, time::Duration};

use redis::{
    Client, FromRedisValue, Pipeline, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// For one question. Every request pays it, so it is short.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Sessions and keys whose tokens are not to be believed although they are genuine, by their ids.
#[derive(Clone)]
pub struct DenyList {
    redis: ConnectionManager,
    prefix: String,
}

impl DenyList {
    /// Connects when it is first asked. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str) -> redis::RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_min_delay(Duration::from_millis(10))
            .set_number_of_retries(1);
        let redis = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self { redis, prefix: format!("{prefix}denied:") })
    }

    // ANCHOR: deny
    /// Denies these ids for a while. Once their last token would have ended anyway, nothing is left of it: the list
    /// holds at most one token life's worth of logouts.
    pub async fn add(&self, ids: &[String], life: Duration) -> Result<()> {
        let mut set = redis::pipe();
        for id in ids {
            set.set_ex(self.key(id), 1, life.as_secs()).ignore();
        }
        self.ask(set).await
    }

    /// Whether one of these is denied.
    pub async fn holds(&self, ids: [&str; 2]) -> Result<bool> {
        let exists = redis::pipe().exists(&ids.map(|id| self.key(id))).clone();
        let [found]: [u8; 1] = self.ask(exists).await?;
        Ok(found > 0)
    }
    // ANCHOR_END: deny

    async fn ask<T: FromRedisValue>(&self, question: Pipeline) -> Result<T> {
        let mut redis = self.redis.clone();
        let answer = timeout(TIMEOUT, question.query_async(&mut redis)).await;
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
        let answer = answer.unwrap_or_else(late);
        if answer.as_ref().is_err_and(|error: &RedisError| error.code() == Some("READONLY")) {
            // From a primary that has become a replica. The next connection may lead to the new primary, but the manager
            // connects only when a command finds the old connection closed. QUIT closes it, and PING finds that.
            let mut leave = redis::pipe();
            leave.cmd("QUIT").cmd("PING");
            let _ = timeout(TIMEOUT, leave.exec_async(&mut redis)).await;
        }
        answer.map_err(|error| {
            // Not louder: there would be one for each request as long as it is away.
            tracing::debug!(%error, "the deny-list is away");
            Error::Unavailable("the deny-list cannot be reached")
        })
    }

    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }
}
