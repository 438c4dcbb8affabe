//! How is an access token taken back before it ends? By asking Redis each time, which is what we wanted to be rid of.
//!
//! Invariant: with a deny-list, no token passes without having been looked up. While Redis is away none passes.

use std::time::Duration;

use redis::{
    Client, Cmd,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::error::Error;

/// For one question. Every request pays it, so it is short.
const TIMEOUT: Duration = Duration::from_millis(300);

/// The ids of tokens that are not to be believed although they are genuine.
#[derive(Clone)]
pub struct DenyList {
    redis: ConnectionManager,
    prefix: String,
}

impl DenyList {
    /// Connects when it is first asked. The error is a malformed URL.
    pub fn new(url: &str, prefix: &str) -> Result<Self, redis::RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_min_delay(Duration::from_millis(10))
            .set_number_of_retries(1);
        let redis = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self { redis, prefix: format!("{prefix}denied:") })
    }

    // ANCHOR: deny
    /// Denies these tokens for as long as each would have lived. Afterwards nothing is left of it: the list holds at
    /// most one token life's worth of logouts.
    pub async fn add(&self, tokens: &[(Uuid, Duration)]) -> Result<(), Error> {
        if tokens.is_empty() {
            return Ok(());
        }
        let mut set = redis::pipe();
        for (jti, left) in tokens {
            set.set_ex(self.key(*jti), 1, left.as_secs() + 1).ignore();
        }
        self.within(async |redis| set.query_async(redis).await).await
    }

    /// Whether this token is denied.
    pub async fn holds(&self, jti: Uuid) -> Result<bool, Error> {
        let exists = Cmd::exists(self.key(jti));
        self.within(async |redis| exists.query_async(redis).await).await
    }
    // ANCHOR_END: deny

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let ping = redis::cmd("PING");
        self.within(async |redis| ping.exec_async(redis).await).await
    }

    async fn within<T>(
        &self,
        question: impl AsyncFnOnce(&mut ConnectionManager) -> redis::RedisResult<T>,
    ) -> Result<T, Error> {
        let mut redis = self.redis.clone();
        match timeout(TIMEOUT, question(&mut redis)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                // Not louder: there would be one for each request as long as it is away.
                tracing::debug!(%error, "the deny-list is away");
                Err(Error::Away("the deny-list"))
            }
            Err(_) => Err(Error::Away("the deny-list")),
        }
    }

    fn key(&self, jti: Uuid) -> String {
        format!("{}{jti}", self.prefix)
    }
}
