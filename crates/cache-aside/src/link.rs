//! How do we speak to Redis, and to which life of it?
//!
//! Invariant: no command waits longer than the time-out, and a link never outlives the server's process. A
//! restarted server has another *life*, and may have old data: what was deleted just before a power cut can
//! be there again. So every content bears the life in which it was written, and no other is believed.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, Script,
    aio::MultiplexedConnection, cmd,
};

use crate::user::UserId;

/// Commands that wait to be written. When it is full the next one waits its turn, within its time-out.
const QUEUE: usize = 4_096;

/// Redis does not answer, or not in time, or not sensibly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Redis is away: {0}")]
pub struct Away(String);

impl From<RedisError> for Away {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

/// Where Redis is, and what our keys begin with.
#[derive(Clone, Debug)]
pub struct Address {
    client: Client,
    prefix: String,
    timeout: Duration,
}

impl Address {
    /// The error is a malformed URL.
    pub fn new(url: &str, prefix: &str, timeout: Duration) -> Result<Self, RedisError> {
        Ok(Self { client: Client::open(url)?, prefix: prefix.to_owned(), timeout })
    }

    /// A link to the server as it runs now.
    pub async fn link(&self) -> Result<Link, Away> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(QUEUE);
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connect.await?;
        let about: String = cmd("INFO").arg("server").query_async(&mut connection).await?;
        let life = about.lines().find_map(|line| line.strip_prefix("run_id:"));
        let life = life.and_then(|id| id.get(..16)).ok_or_else(|| Away("no run_id".to_owned()))?;
        let link = Link {
            connection,
            life: life.to_owned(),
            prefix: self.prefix.clone(),
            since: Instant::now(),
            clock: AtomicI64::new(0),
        };
        link.set_clock().await?;
        Ok(link)
    }
}

/// A connection to one life of the server. All commands share it, and none waits for another's answer.
#[derive(Debug)]
pub struct Link {
    connection: MultiplexedConnection,
    life: String,
    prefix: String,
    since: Instant,
    /// Microseconds from `since` to Redis' own time.
    clock: AtomicI64,
}

// ANCHOR: replace
/// Puts ARGV[2] in the place of ARGV[1], or nothing if it is empty. A content is never written twice, so what
/// is still there has been there all the time.
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        if redis.call('get', KEYS[1]) ~= ARGV[1] then
            return 0
        end
        if ARGV[2] == '' then
            redis.call('del', KEYS[1])
        else
            redis.call('set', KEYS[1], ARGV[2], 'px', ARGV[3])
        end
        return 1
        "#,
    )
});
// ANCHOR_END: replace

impl Link {
    /// Which life of the server this is.
    pub fn life(&self) -> &str {
        &self.life
    }

    /// The key of a user.
    pub fn key(&self, id: UserId) -> String {
        format!("{}user:{}", self.prefix, id.get())
    }

    /// What is there.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Away> {
        let found = self.ask(cmd("GET").arg(key)).await?;
        if found.is_none() {
            // No string: nothing of ours. To delete is always safe.
            self.delete(&[key.to_owned()]).await?;
        }
        Ok(found.flatten())
    }

    /// What is there under each of these keys.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Away> {
        Ok(cmd("MGET").arg(keys).query_async(&mut self.connection.clone()).await?)
    }

    /// Puts it there, whatever was there before. Only the textbook does this.
    pub async fn set(&self, key: &str, content: &[u8], life: Duration) -> Result<bool, Away> {
        let mut set = cmd("SET");
        set.arg(key).arg(content).arg("PX").arg(millis(life));
        Ok(self.ask::<()>(&set).await?.is_some())
    }

    // ANCHOR: add
    /// Puts it there if nothing is. One command, and Redis runs one at a time: of all who want the key at
    /// once, one gets it, and the others get what that one has put there.
    pub async fn add(&self, key: &str, content: &[u8], life: Duration) -> Result<Added, Away> {
        let mut add = cmd("SET");
        add.arg(key).arg(content).arg("NX").arg("GET").arg("PX").arg(millis(life));
        Ok(match self.ask(&add).await? {
            Some(None) => Added::Yes,
            Some(Some(found)) => Added::Found(found),
            None => Added::Refused,
        })
    }
    // ANCHOR_END: add

    /// Puts `new` in the place of `old`, and says whether it did. An empty `new` deletes.
    pub async fn replace(
        &self,
        key: &str,
        old: &[u8],
        new: &[u8],
        life: Duration,
    ) -> Result<bool, Away> {
        let mut replace = REPLACE.key(key);
        replace.arg(old).arg(new).arg(millis(life));
        match replace.invoke_async(&mut self.connection.clone()).await {
            Ok(replaced) => Ok(replaced),
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes these keys.
    pub async fn delete(&self, keys: &[String]) -> Result<(), Away> {
        let mut delete = Pipeline::new();
        // One command for each key: in a cluster they live on different servers.
        for key in keys {
            delete.cmd("DEL").arg(key).ignore();
        }
        Ok(delete.query_async(&mut self.connection.clone()).await?)
    }

    /// The time by Redis' clock in milliseconds: the one clock that all processes share.
    pub fn now(&self) -> u64 {
        let since = i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX);
        u64::try_from(since.saturating_add(self.clock.load(Ordering::Relaxed)) / 1_000).unwrap_or(0)
    }

    /// Reads Redis' clock, which also tells whether it answers. Right to half a round trip.
    pub async fn set_clock(&self) -> Result<(), Away> {
        let asked = self.since.elapsed();
        let (seconds, micros): (i64, i64) =
            cmd("TIME").query_async(&mut self.connection.clone()).await?;
        let between = (asked + self.since.elapsed()) / 2;
        let between = i64::try_from(between.as_micros()).unwrap_or(i64::MAX);
        self.clock.store(seconds * 1_000_000 + micros - between, Ordering::Relaxed);
        Ok(())
    }

    /// `None`: the server is well, but refuses just this.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<Option<T>, Away> {
        match command.query_async(&mut self.connection.clone()).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_refusal(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What [`Link::add`] came to.
#[derive(Debug)]
pub enum Added {
    /// It is there.
    Yes,
    /// This was there.
    Found(Vec<u8>),
    /// Something was there that is no string, or there is no room.
    Refused,
}

/// Not a string, or no memory left and nothing that may be evicted. All other errors (it is loading its data,
/// it has become a replica) mean that there is no cache to be had from it now.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGTYPE" | "OOM"))
}

/// At least one: Redis refuses 0.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
