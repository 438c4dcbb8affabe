//! The cache of the textbook: look, load, set; and on a change delete. With or without one load at a time for each key.

use std::{sync::Arc, time::Duration};

use redis::{AsyncCommands, AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    flight::{Flights, Turn},
    user::UserId,
};

/// Nothing may time out here: it is compared by what it does, and not by how fast it is.
const LONG: Duration = Duration::from_mins(1);
/// An hour, in seconds.
const TTL: u64 = 3_600;

/// What one process has.
#[derive(Clone, Debug)]
pub struct Textbook {
    database: PgPool,
    redis: MultiplexedConnection,
    keys: String,
    flights: Option<Arc<Flights>>,
}

impl Textbook {
    /// A process on these servers.
    pub async fn new(
        database_url: &str,
        redis_url: &str,
        prefix: &str,
        single_flight: bool,
    ) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(12).acquire_timeout(LONG);
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(Some(LONG))
            .set_pipeline_buffer_size(8_192);
        let redis = Client::open(redis_url)?;
        Ok(Self {
            database: pool.connect(database_url).await?,
            redis: redis.get_multiplexed_async_connection_with_config(&config).await?,
            keys: format!("{prefix}textbook:"),
            flights: single_flight.then(Arc::default),
        })
    }

    /// The key of a user.
    pub fn key(&self, id: UserId) -> String {
        format!("{}{}", self.keys, id.get())
    }

    /// The name of a user.
    pub async fn get(&self, id: UserId) -> anyhow::Result<Option<String>> {
        let mut redis = self.redis.clone();
        loop {
            if let Some(name) = redis.get(self.key(id)).await? {
                return Ok(Some(name));
            }
            let _landing = match self.flights.as_ref().map(|flights| flights.board(id)) {
                Some(Turn::Follow(mut end)) => {
                    // An error means that the flight has ended.
                    let _ = end.changed().await;
                    continue;
                }
                Some(Turn::Lead(landing)) => Some(landing),
                None => None,
            };
            let name: Option<String> = sqlx::query_scalar("select name from users where id = $1")
                .bind(id)
                .fetch_optional(&self.database)
                .await?;
            if let Some(name) = &name {
                let () = redis.set_ex(self.key(id), name, TTL).await?;
            }
            return Ok(name);
        }
    }

    /// Changes a user, and deletes it from the cache.
    pub async fn update(&self, id: UserId, name: &str) -> anyhow::Result<()> {
        sqlx::query("update users set name = $2 where id = $1")
            .bind(id)
            .bind(name)
            .execute(&self.database)
            .await?;
        Ok(self.redis.clone().del(self.key(id)).await?)
    }

    /// How long a user will be in the cache, in seconds.
    pub async fn ttl(&self, id: UserId) -> anyhow::Result<i64> {
        Ok(self.redis.clone().ttl(self.key(id)).await?)
    }

    /// Deletes a user from the cache.
    pub async fn forget(&self, id: UserId) -> anyhow::Result<()> {
        Ok(self.redis.clone().del(self.key(id)).await?)
    }
}
