//! Two caches that take writes: one passes them on to the database at once, the other later.

use std::time::Duration;

use redis::{AsyncCommands, Client, aio::MultiplexedConnection, cmd};
use sqlx::{PgPool, postgres::PgPoolOptions};

/// The ids of changed users that the database does not know yet.
const CHANGED: &str = "changed";

/// The two servers, and what both caches do with them.
#[derive(Clone, Debug)]
pub struct Servers {
    /// Where changes are kept, at once or later.
    pub database: PgPool,
    redis: MultiplexedConnection,
}

impl Servers {
    /// Connects.
    pub async fn connect(database_url: &str, redis_url: &str) -> anyhow::Result<Self> {
        let redis = Client::open(redis_url)?.get_multiplexed_async_connection().await?;
        let mut redis = redis;
        redis.set_response_timeout(Duration::from_secs(30));
        Ok(Self { database: PgPoolOptions::new().connect(database_url).await?, redis })
    }

    /// What the cache says.
    pub async fn cached(&self, id: i64) -> anyhow::Result<Option<String>> {
        Ok(self.redis.clone().get(key(id)).await?)
    }

    /// What the database says.
    pub async fn kept(&self, id: i64) -> anyhow::Result<String> {
        let kept = sqlx::query_scalar("select name from users where id = $1").bind(id);
        Ok(kept.fetch_one(&self.database).await?)
    }

    async fn keep(&self, id: i64, name: &str) -> anyhow::Result<()> {
        sqlx::query("update users set name = $2 where id = $1")
            .bind(id)
            .bind(name)
            .execute(&self.database)
            .await?;
        Ok(())
    }

    /// Write-through: the database, then the cache, then the answer.
    pub async fn write_through(&self, id: i64, name: &str) -> anyhow::Result<()> {
        self.keep(id, name).await?;
        Ok(self.redis.clone().set(key(id), name).await?)
    }

    /// Write-behind: the cache, then the answer. The database comes later.
    pub async fn write_behind(&self, id: i64, name: &str) -> anyhow::Result<()> {
        let mut both = redis::pipe();
        both.atomic().set(key(id), name).ignore().sadd(CHANGED, id).ignore();
        Ok(both.query_async(&mut self.redis.clone()).await?)
    }

    /// What write-behind does in the background: writes each user that has changed since the last time, once. Returns
    /// how many users that were.
    pub async fn flush(&self) -> anyhow::Result<u64> {
        let ids: Vec<i64> =
            cmd("SPOP").arg(CHANGED).arg(1_000_000).query_async(&mut self.redis.clone()).await?;
        for id in &ids {
            if let Some(name) = self.cached(*id).await? {
                self.keep(*id, &name).await?;
            }
        }
        Ok(ids.len() as u64)
    }
}

fn key(id: i64) -> String {
    format!("policies:{id}")
}
