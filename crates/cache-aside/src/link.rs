//! How do we speak to Redis, and which of its contents may be ours?
//!
//! Invariant: no command waits longer than the time-out, and a link never outlives the server's process.
//!
//! The cache must outlive neither of the two servers. A database that was emptied or replaced has another *origin* (a
//! random id in a table of its own). A Redis that was restarted has another *life* (its `run_id`), and may have old
//! data: what was deleted just before a power cut can be there again. Both are a part of every key, so what was cached
//! of another database or in another life is simply not found, and expires.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Bytes;
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, RedisError, Script, aio::MultiplexedConnection, cmd,
};

use crate::{
    near::Near,
    user::UserId,
    value::{self, Content, Place, TOKEN, Value},
};

/// Commands that wait to be written. When it is full the next one waits its turn, within its time-out.
const QUEUE: usize = 4_096;
/// Letters of an origin or a life. Nobody has ever seen two random ones with the same twelve.
const PART: usize = 12;

/// Redis does not answer, or not in time, or not sensibly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("Redis is away: {why}")]
pub struct Away {
    why: String,
    /// This command took too long. The next may be quick.
    pub is_slow: bool,
}

impl From<RedisError> for Away {
    fn from(error: RedisError) -> Self {
        Self { why: error.to_string(), is_slow: error.is_timeout() }
    }
}

/// Where Redis is, and how it is used.
#[derive(Clone, Debug)]
pub struct Address {
    client: Client,
    prefix: String,
    timeout: Duration,
    near: usize,
}

impl Address {
    /// `near` is how many users a process keeps beside Redis. The error is a malformed URL.
    pub fn new(
        url: &str,
        prefix: &str,
        timeout: Duration,
        near: usize,
    ) -> Result<Self, RedisError> {
        let mut info = url.into_connection_info()?;
        if near > 0 {
            // Only RESP3 has messages that nobody asked for.
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            info = info.set_redis_settings(settings);
        }
        Ok(Self { client: Client::open(info)?, prefix: prefix.to_owned(), timeout, near })
    }

    /// A link to the server as it runs now, for what is cached of this database.
    pub async fn link(&self, origin: &str) -> Result<Link, Away> {
        let near = (self.near > 0).then(|| Arc::new(Near::new(self.near)));
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(QUEUE);
        if let Some(near) = near.clone() {
            config = config.set_push_sender(move |push: PushInfo| {
                near.hear(&push);
                Ok::<_, RedisError>(())
            });
        }
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connect.await?;
        if near.is_some() {
            cmd("CLIENT").arg("TRACKING").arg("ON").exec_async(&mut connection).await?;
        }
        let about: String = cmd("INFO").arg("server").query_async(&mut connection).await?;
        let part = |id: &str| id.get(..PART).unwrap_or(id).to_owned();
        let life = about.lines().find_map(|line| line.strip_prefix("run_id:")).map(part);
        let life = life.ok_or(Away { why: "no run_id in INFO".to_owned(), is_slow: false })?;
        let link = Link {
            connection,
            near,
            keys: format!("{}{}:{life}:user:", self.prefix, part(origin)),
            origin: origin.to_owned(),
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
    /// What this process keeps for itself, for as long as it has this connection.
    near: Option<Arc<Near>>,
    /// What is before the id in every key.
    keys: String,
    /// The database whose users are under these keys.
    pub origin: String,
    since: Instant,
    /// Microseconds from `since` to Redis' own time.
    clock: AtomicI64,
}

// ANCHOR: replace
/// Puts ARGV[2] in the place of the content with the token ARGV[1], or nothing if ARGV[2] is empty. No two contents
/// have the same token, so what is still there has been there all the time.
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"
        if redis.call('getrange', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
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
    /// The key of a user.
    pub fn key(&self, id: UserId) -> String {
        format!("{}{}", self.keys, id.get())
    }

    /// What is known of a user, if it is.
    pub async fn get(&self, id: UserId) -> Result<Option<(Place, Value)>, Away> {
        let Some(near) = &self.near else {
            return Ok(self.get_far(id).await?.map(|value| (Place::Redis, value)));
        };
        let question = match near.get(id, self.now()) {
            Ok(value) => return Ok(Some((Place::Near, value))),
            Err(question) => question,
        };
        let value = self.get_far(id).await?;
        near.put(id, question, value.as_ref());
        Ok(value.map(|value| (Place::Redis, value)))
    }

    async fn get_far(&self, id: UserId) -> Result<Option<Value>, Away> {
        let content = match self.ask::<Option<Bytes>>(cmd("GET").arg(self.key(id))).await? {
            Some(None) => return Ok(None),
            Some(Some(bytes)) => value::decode(&bytes),
            // Not a string.
            None => Content::Other,
        };
        match content {
            Content::Value(value) => return Ok(Some(value)),
            Content::Lease => {}
            // To delete is always safe.
            Content::Other => self.forget(&[id]).await?,
        }
        Ok(None)
    }

    // ANCHOR: add
    /// Puts a lease there if nothing is. One command, and Redis runs one at a time: of all who want the key at once,
    /// one gets it, and the others get what that one has put there.
    pub async fn add(&self, id: UserId, token: &str, life: Duration) -> Result<Added, Away> {
        let mut add = cmd("SET");
        add.arg(self.key(id)).arg(value::lease(token));
        add.arg("NX").arg("GET").arg("PX").arg(millis(life));
        Ok(match self.ask::<Option<Bytes>>(&add).await? {
            Some(None) => Added::Yes,
            Some(Some(found)) => Added::Found(value::decode(&found)),
            None => Added::Refused,
        })
    }
    // ANCHOR_END: add

    /// Puts `new` in the place of the content with this token, and says whether it did. An empty `new` deletes.
    pub async fn replace(
        &self,
        id: UserId,
        token: &str,
        new: &[u8],
        life: Duration,
    ) -> Result<bool, Away> {
        debug_assert_eq!(token.len(), TOKEN);
        let mut replace = REPLACE.key(self.key(id));
        replace.arg(token).arg(new).arg(millis(life));
        match replace.invoke_async(&mut self.connection.clone()).await {
            Ok(replaced) => Ok(replaced),
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what is known of these users, here and in Redis. Other processes' copies hear of it from Redis.
    pub async fn forget(&self, ids: &[UserId]) -> Result<(), Away> {
        let mut delete = Pipeline::new();
        // One command for each key: in a cluster they live on different servers.
        for id in ids {
            delete.cmd("DEL").arg(self.key(*id)).ignore();
        }
        let () = delete.query_async(&mut self.connection.clone()).await?;
        if let Some(near) = &self.near {
            ids.iter().for_each(|id| near.forget(*id));
        }
        Ok(())
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
    Found(Content),
    /// Something was there that is no string, or there is no room.
    Refused,
}

/// Not a string, or no memory left and nothing that may be evicted. All other errors (Redis is loading its data, it has
/// become a replica) mean that there is no cache to be had from it now.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGTYPE" | "OOM"))
}

/// At least one: Redis refuses 0.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).max(1)
}
